"""From a grid of patches back to the image they were cut from, and what a map on it says there.

Pure functions of sizes and of small arrays. Points and boxes are in pixels of the original image,
as it stands upright: (x, y) and (left, top, right, bottom), from its upper left corner, 0 to its
width and height. What a map has in the padding of a letterboxed image is outside: it belongs to no
pixel.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from worker.blip.framing import Framing
from worker.blip.geometry import Box, Grid, Placement

Point = tuple[float, float]
Extent = tuple[float, float, float, float]
"""A box in fractions of pixels."""

_HALF = 0.5


@dataclass(frozen=True)
class Located:
    """What a map says of an image.

    peak      (x, y): `peak`, on the image
    box       round the fewest patches that hold half of the map, whole pixels
    entropy   of the shares, in nats: 0 for one patch, log(patches) for an even map
    coverage  the share of the image's area that the box takes
    """

    peak: Point
    box: Box
    entropy: float
    coverage: float


@dataclass(frozen=True)
class PlacedGrid:
    """A grid (rows, columns) of square patches on an image of width x height pixels."""

    grid: Grid
    patch_size: int
    placement: Placement
    width: int
    height: int

    def point(self, row: float, column: float) -> Point:
        """The pixel at a place on the grid, whose first patch goes from 0 to 1; perhaps outside."""
        left, top, right, bottom = self._cut
        wide, high = self.placement.resized
        x = (column * self.patch_size - self.placement.offset[0]) * (right - left) / wide + left
        y = (row * self.patch_size - self.placement.offset[1]) * (bottom - top) / high + top
        return x, y

    def extent(self, row: int, column: int) -> Extent | None:
        """What a patch shows of the image; None for one that shows padding alone."""
        left, top = self.point(row, column)
        right, bottom = self.point(row + 1, column + 1)
        edge = self._cut
        left, top = max(left, edge[0]), max(top, edge[1])
        right, bottom = min(right, edge[2]), min(bottom, edge[3])
        return (left, top, right, bottom) if left < right and top < bottom else None

    def extents(self) -> list[Extent | None]:
        """Of every patch, row by row."""
        rows, columns = self.grid
        return [self.extent(row, column) for row in range(rows) for column in range(columns)]

    def locate(self, shares: NDArray[np.floating]) -> Located:
        """What a map [rows, columns], none negative, says of the image.

        A map that has nothing on it counts as even. Raises ValueError for one of another shape.
        """
        if shares.shape != self.grid:
            raise ValueError(f"a map of {shares.shape} is none of the grid {self.grid}")
        extents, on_image = self._cells
        mass = np.where(on_image, shares.ravel().astype(np.float64), 0)
        if not mass.any():
            mass = on_image.astype(np.float64)
        mass /= mass.sum()
        left, top, right, bottom = _around([extents[cell] for cell in region(mass)])
        x, y = self.point(*peak(mass.reshape(self.grid)))
        edge = self._cut
        box = floor(left), floor(top), ceil(right), ceil(bottom)
        some = mass[mass > 0]
        return Located(
            peak=(min(max(x, edge[0]), edge[2]), min(max(y, edge[1]), edge[3])),
            box=box,
            entropy=max(0.0, -float((some * np.log(some)).sum())),
            coverage=(box[2] - box[0]) * (box[3] - box[1]) / (self.width * self.height),
        )

    @cached_property
    def _cells(self) -> tuple[list[Extent | None], NDArray[np.bool_]]:
        """The extents, and which of them there are: the same for every word."""
        extents = self.extents()
        return extents, np.array([extent is not None for extent in extents])

    @property
    def _cut(self) -> Box:
        """The part of the image that the grid was made of."""
        return self.placement.box or (0, 0, self.width, self.height)


def placed(framing: Framing, width: int, height: int) -> PlacedGrid:
    """The grid of an image of width x height pixels, upright, that `framing` has brought to it."""
    placement = framing.place(width, height)
    size = framing.patch_size
    grid = placement.canvas[1] // size, placement.canvas[0] // size
    return PlacedGrid(grid, size, placement, width, height)


def peak(shares: NDArray[np.floating]) -> Point:
    """(row, column) of a map's peak, on a grid whose first patch goes from 0 to 1.

    The mean place of the largest patch and its eight neighbours, by their shares: nearer to the
    middle of what is there than the largest patch's own middle.
    """
    row, column = divmod(int(shares.argmax()), shares.shape[1])
    rows = slice(max(0, row - 1), row + 2)
    columns = slice(max(0, column - 1), column + 2)
    near = shares[rows, columns].astype(np.float64)
    down, across = np.arange(near.shape[0]) + rows.start, np.arange(near.shape[1]) + columns.start
    total = near.sum()
    return (
        float(near.sum(axis=1) @ down / total) + 0.5,
        float(near.sum(axis=0) @ across / total) + 0.5,
    )


def region(mass: NDArray[np.float64]) -> list[int]:
    """The fewest cells of a flat map with sum 1 that hold half of it, the largest first."""
    order = np.argsort(-mass, kind="stable")
    enough = int(np.searchsorted(mass[order].cumsum(), _HALF - 1e-9)) + 1
    return [int(cell) for cell in order[:enough]]


def _around(extents: list[Extent | None]) -> Extent:
    left, top, right, bottom = zip(*(extent for extent in extents if extent), strict=True)
    return min(left), min(top), max(right), max(bottom)
