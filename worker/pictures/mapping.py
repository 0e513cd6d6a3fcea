"""How a map's cells lie on the original image: a place and a size, in every resolution mode.

Cell (row, column) of a map covers, in pixels of the upright original image,

    x from origin[0] + column * cell[0] to origin[0] + (column + 1) * cell[0]
    y from origin[1] + row * cell[1]    to origin[1] + (row + 1) * cell[1]

as far as that lies inside `seen`. What lies outside was padding and belongs to no pixel, and pixels
outside `seen` were cropped off and belong to no cell.
"""

from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from worker.blip.geometry import Box
from worker.blip.placement import PlacedGrid, Point

_ROUNDING = 1e-6  # of a cell: what arithmetic may put over its edge


@dataclass(frozen=True)
class Mapping:
    """Of a grid to an image.

    size    (width, height) of the image, in pixels
    origin  (x, y) of the grid's upper left corner; below 0 where padding lies before the image
    cell    (width, height) of one cell
    seen    the part of the image that the model was shown
    """

    size: tuple[int, int]
    origin: Point
    cell: Point
    seen: Box

    def visible(self, maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], "Mapping"]:
        """Maps [..., rows, columns] without the rows and columns of padding, and their mapping."""
        rows, columns = self._span(1, maps.shape[-2]), self._span(0, maps.shape[-1])
        x = self.origin[0] + columns.start * self.cell[0]
        y = self.origin[1] + rows.start * self.cell[1]
        return maps[..., rows, columns], replace(self, origin=(x, y))

    def coarser(self, maps: NDArray[np.float32], by: int) -> tuple[NDArray[np.float32], "Mapping"]:
        """Maps [..., rows, columns] whose cells are the means of by x by cells, and their mapping.

        At the far edges, cells that are not there count as the nearest that are.
        """
        short = [-side % by for side in maps.shape[-2:]]
        padded = np.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(0, n) for n in short], mode="edge")
        rows, columns = padded.shape[-2] // by, padded.shape[-1] // by
        blocks = padded.reshape(*padded.shape[:-2], rows, by, columns, by)
        return blocks.mean(axis=(-3, -1), dtype=np.float32), replace(
            self, cell=(self.cell[0] * by, self.cell[1] * by)
        )

    def _span(self, axis: int, count: int) -> slice:
        """The cells along an axis (0 is x) that show some of the image."""
        first = (self.seen[axis] - self.origin[axis]) / self.cell[axis]
        last = (self.seen[axis + 2] - self.origin[axis]) / self.cell[axis]
        return slice(max(0, floor(first + _ROUNDING)), min(count, ceil(last - _ROUNDING)))


def mapping(placed: PlacedGrid) -> Mapping:
    """Of a grid that was placed on an image."""
    left, top = placed.point(0, 0)
    right, bottom = placed.point(1, 1)
    width, height = placed.width, placed.height
    return Mapping(
        size=(width, height),
        origin=(left, top),
        cell=(right - left, bottom - top),
        seen=placed.placement.box or (0, 0, width, height),
    )
