"""Maps as bytes, 255 for each one's largest share: for pages, and for results that carry them."""

from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from worker.pictures.mapping import Mapping

__all__ = ["fitted"]


def fitted(
    maps: Sequence[NDArray[np.float32]], lies: Mapping, most_cells: int
) -> tuple[Mapping, list[NDArray[np.uint8]]]:
    """Several times maps [words, rows, columns] of one grid, as uint8, and how their cells lie.

    Without padding. Made coarser by the smallest whole number that leaves no more than
    `most_cells` of all of them together, or one cell for each word.
    """
    for by in count(1):
        cells, here = [], lies
        for some in maps:
            visible, here = lies.visible(some)
            if by > 1:
                visible, here = here.coarser(visible, by)
            cells.append(visible)
        if sum(some.size for some in cells) <= max(most_cells, sum(map(len, cells))):
            return here, [_scaled(some) for some in cells]
    raise AssertionError


def _scaled(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    most = maps.max(axis=(1, 2), keepdims=True, initial=0)
    scaled = np.divide(255 * maps, most, out=np.zeros_like(maps), where=most > 0)
    made: NDArray[np.uint8] = scaled.round().astype(np.uint8)
    return made
