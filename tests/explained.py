"""Explanations made up, on images of known pixels."""

from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.blip.explanation import ExplainedWord, Explanation, Method
from worker.blip.framing import Framing
from worker.blip.geometry import Grid, Mode
from worker.blip.placement import PlacedGrid, placed

PATCH = 16
GRAY = (128, 128, 128)
MODES: tuple[tuple[Mode, tuple[int, int]], ...] = (
    ("stretch", (300, 300)),
    ("stretch", (500, 200)),
    ("pad", (500, 200)),
    ("pad", (190, 470)),
    ("crop", (500, 200)),
    ("crop", (190, 470)),
    ("native", (500, 200)),
    ("native", (190, 470)),
)
"""Resolution modes, and the (width, height) of an image."""


def grid_on(width: int, height: int, mode: Mode = "stretch", patches: int = 8) -> PlacedGrid:
    """A grid of patches x patches, or in native mode of about as many."""
    side = patches * PATCH
    return placed(Framing(mode, (side, side), PATCH, 3, GRAY), width, height)


def gray(on: PlacedGrid) -> Image.Image:
    return Image.new("RGB", (on.width, on.height), GRAY)


def at(grid: Grid, row: int, column: int) -> NDArray[np.float32]:
    """A map with everything in one cell."""
    shares = np.zeros(grid, np.float32)
    shares[row, column] = 1
    return shares


def explained(
    words: Sequence[str],
    maps: Sequence[NDArray[np.float32]] | Grid,
    probabilities: Sequence[float] | None = None,
    method: Method = "attention",
    matched: bool = False,
) -> Explanation:
    """Words with maps, or with random ones of a grid; likely ones, unless told."""
    if isinstance(maps, tuple):
        rng = np.random.default_rng(len(words))
        made = rng.random((len(words), *maps), dtype=np.float32) ** 4
        stacked = made / made.sum(axis=(1, 2), keepdims=True)
    else:
        stacked = np.stack(maps).astype(np.float32)
    sure = probabilities or [0.93] * len(words)
    return Explanation(
        text=" ".join(words),
        tokens=list(words),
        words=[
            ExplainedWord(word, place, place, None if matched else log(p))
            for place, (word, p) in enumerate(zip(words, sure, strict=True))
        ],
        maps=stacked,
        grid=(stacked.shape[1], stacked.shape[2]),
        method=method,
    )
