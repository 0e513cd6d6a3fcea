"""BLIP inference as a library: `Engine.load(...)`, then `caption`, `match` and `embed`.

Needs torch, transformers, numpy, Pillow and safetensors; nothing of the queue.
"""

from worker.blip.diversity import distinct_2
from worker.blip.engine import EncodedImages, Engine
from worker.blip.errors import (
    BlipError,
    CheckpointError,
    DeviceLost,
    DeviceUnavailable,
    InputError,
    OutOfMemory,
)
from worker.blip.hub import fetch_model
from worker.blip.options import REFERENCE, CaptionOptions
from worker.blip.results import Caption, Match

__all__ = [
    "REFERENCE",
    "BlipError",
    "Caption",
    "CaptionOptions",
    "CheckpointError",
    "DeviceLost",
    "DeviceUnavailable",
    "EncodedImages",
    "Engine",
    "InputError",
    "Match",
    "OutOfMemory",
    "distinct_2",
    "fetch_model",
]
