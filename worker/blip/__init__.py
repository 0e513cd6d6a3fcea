"""BLIP inference as a library: `Engine.load(...)`, then `caption`, `match`, `rank` and `embed`.

Needs torch, transformers, numpy, Pillow and safetensors; nothing of the queue. What needs torch is
imported when it is first named: the geometry of images is used in processes without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.blip.diversity import distinct_2
    from worker.blip.encoded import EncodedImages
    from worker.blip.engine import Engine
    from worker.blip.errors import (
        BlipError,
        CheckpointError,
        DeviceLost,
        DeviceUnavailable,
        InputError,
        OutOfMemory,
        PackError,
    )
    from worker.blip.explanation import ExplainedWord, Explanation
    from worker.blip.hub import fetch_model
    from worker.blip.images import crop
    from worker.blip.options import REFERENCE, CaptionOptions
    from worker.blip.pack import Pack
    from worker.blip.results import Caption, Match, Ranked

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
    "ExplainedWord",
    "Explanation",
    "InputError",
    "Match",
    "OutOfMemory",
    "Pack",
    "PackError",
    "Ranked",
    "crop",
    "distinct_2",
    "fetch_model",
]

_MODULES = {
    "diversity": ("distinct_2",),
    "encoded": ("EncodedImages",),
    "engine": ("Engine",),
    "errors": (
        "BlipError",
        "CheckpointError",
        "DeviceLost",
        "DeviceUnavailable",
        "InputError",
        "OutOfMemory",
        "PackError",
    ),
    "explanation": ("ExplainedWord", "Explanation"),
    "hub": ("fetch_model",),
    "images": ("crop",),
    "options": ("REFERENCE", "CaptionOptions"),
    "pack": ("Pack",),
    "results": ("Caption", "Match", "Ranked"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
