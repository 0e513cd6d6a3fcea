"""Occlusion (Zeiler & Fergus 2014): patches hidden, and what the words lose by it.

It asks nothing of the model's insides, so it is what other methods are compared with; and it costs
a pass of the whole model for every window. What is hidden takes the image's median colour: grey
squares are things to be seen, and on drawn scenes they misled it half of the time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, sqrt

from torch import Tensor
from torch.nn import functional

from worker.blip.geometry import Grid

MOST_WINDOWS = 64
_REACH = 1
"""Of a window beyond its middle, in sides of that: a shape's edge alone is rarely missed."""
Scores = Callable[[Tensor], Tensor]
"""float [N, 3, H, W], normalised, to a score of every token, float32 [B, T]."""


@dataclass(frozen=True)
class Window:
    """The rows and columns of patches that are hidden, and of those in its middle."""

    hidden: tuple[slice, slice]
    middle: tuple[slice, slice]


def drops(pixel_values: Tensor, grid: Grid, scores: Scores) -> Tensor:
    """What each token's score loses where an image is hidden: float32 [B, T, 1 + patches].

    A patch has the loss of the window in whose middle it is; the class token's column is 0.
    """
    patch = pixel_values.shape[2] // grid[0]
    plain = median_colour(pixel_values)
    whole = scores(pixel_values)
    found = whole.new_zeros(*whole.shape, *grid)
    for window in windows(grid):
        down, across = (slice(s.start * patch, s.stop * patch) for s in window.hidden)
        covered = pixel_values.clone()
        covered[:, :, down, across] = plain
        found[:, :, *window.middle] = (whole - scores(covered))[..., None, None]
    return functional.pad(found.flatten(2), (1, 0))


def median_colour(pixel_values: Tensor) -> Tensor:
    """Of each channel by itself: [N, 3, H, W] to [N, 3, 1, 1]."""
    return pixel_values.flatten(2).median(dim=2).values[..., None, None]


def windows(grid: Grid) -> Iterator[Window]:
    """At most about MOST_WINDOWS, whose middles tile the grid; its edges cut them."""
    rows, columns = grid
    side = ceil(sqrt(rows * columns / MOST_WINDOWS))
    reach = _REACH * side
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            bottom, right = min(rows, top + side), min(columns, left + side)
            yield Window(
                hidden=(
                    slice(max(0, top - reach), min(rows, bottom + reach)),
                    slice(max(0, left - reach), min(columns, right + reach)),
                ),
                middle=(slice(top, bottom), slice(left, right)),
            )
