"""Occlusion (Zeiler & Fergus 2014): patches greyed out, and what the words lose by it.

It asks nothing of the model's insides, so it is what other methods are compared with; and it costs
a pass of the whole model for every window.
"""

from collections.abc import Callable, Iterator
from math import ceil, sqrt

import torch
from torch import Tensor

from worker.blip.geometry import Grid

MOST_WINDOWS = 64
Scores = Callable[[Tensor], Tensor]
"""float [N, 3, H, W], normalised, to a score of every token, float32 [B, T]."""


def drops(pixel_values: Tensor, grid: Grid, scores: Scores) -> Tensor:
    """What each token's score loses where a patch is grey: float32 [B, T, 1 + patches].

    The class token's column is 0. Grey is the preprocessor's mean, 0 once normalised. On grids of
    more than MOST_WINDOWS patches, windows of several are greyed at once and share the loss.
    """
    rows, columns = grid
    patch = pixel_values.shape[2] // rows
    whole = scores(pixel_values)
    found = whole.new_zeros(*whole.shape, rows, columns)
    for down, across in windows(grid):
        hidden = pixel_values.clone()
        hidden[
            :, :, down.start * patch : down.stop * patch, across.start * patch : across.stop * patch
        ] = 0
        found[:, :, down, across] = (whole - scores(hidden))[..., None, None]
    return torch.nn.functional.pad(found.flatten(2), (1, 0))


def windows(grid: Grid) -> Iterator[tuple[slice, slice]]:
    """At most about MOST_WINDOWS squares of patches that tile a grid, cut off at its edges."""
    rows, columns = grid
    side = ceil(sqrt(rows * columns / MOST_WINDOWS))
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield (
                slice(top, min(rows, top + side)),
                slice(left, min(columns, left + side)),
            )
