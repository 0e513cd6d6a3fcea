"""Scenes drawn and encoded once, for all that is then asked about them."""

from collections.abc import Sequence

import torch

from worker.blip import EncodedImages, Engine
from worker.training.evaluate import parts
from worker.training.scenes import Scene, draw


def encoded(engine: Engine, scenes: list[Scene]) -> EncodedImages:
    """Scenes after the ViT: for BLIP-base's shape in float32 1.8 MB each."""
    made = [engine.encode([draw(scene) for scene in part]).embeddings for part in parts(scenes)]
    return EncodedImages(torch.cat(made))


def some(images: EncodedImages, rows: Sequence[int]) -> EncodedImages:
    """The images of these rows."""
    return EncodedImages(images.embeddings[list(rows)])
