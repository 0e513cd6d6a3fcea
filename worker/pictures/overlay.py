"""A word's map over the image: smooth, as far as the model saw the image."""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worker.blip.placement import PlacedGrid
from worker.pictures.colours import OPACITY, colours
from worker.pictures.ground import Ground, ground, size_of, within
from worker.pictures.mapping import Mapping, mapping

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 800
MOST_LONGEST = 1_200
"""Pixels of an overlay's longer side: by default, and at most."""
MOST_WORDS = 50
"""Of a caption, that there are pictures of: texts may have hundreds."""
DIMMED = 0.35
"""What is left of the light of what the model was not shown."""


def overlay(
    image: Ground, shares: NDArray[np.float32], placed: PlacedGrid, longest: int = LONGEST
) -> bytes:
    """A PNG of the image under the map `shares` [rows, columns], in the image's aspect ratio.

    Its longer side has `longest` pixels, or as many as the image's where that has fewer.

    Raises:
        ValueError: for a `longest` that is not 1 to MOST_LONGEST, an image of another size than
            `placed` is for and not made smaller either, or a map of another grid.
        NotInstalled: without matplotlib.
    """
    if not 1 <= longest <= MOST_LONGEST:
        raise ValueError(f"the longer side is 1 to {MOST_LONGEST} pixels, not {longest}")
    check(image, shares, placed)
    size = within(placed.width, placed.height, longest)
    return png(tinted(ground(image, size), shares, mapping(placed)))


def check(image: Ground, maps: NDArray[np.float32], placed: PlacedGrid) -> None:
    """Raise ValueError unless `placed` is of maps [..., rows, columns], and of the image: at its
    size, or made smaller by `within`."""
    width, height = size_of(image)
    if (width, height) != within(placed.width, placed.height, max(width, height)):
        raise ValueError(
            f"an image of {width}x{height} pixels is not the {placed.width}x{placed.height} "
            "that the map was placed on"
        )
    if maps.shape[-2:] != placed.grid:
        raise ValueError(f"a map of {maps.shape[-2:]} is none of the grid {placed.grid}")


def tinted(shown: "Image.Image", shares: NDArray[np.float32], lies: Mapping) -> "Image.Image":
    """An RGB image, of whatever size, under a map [rows, columns] that lies on the original so."""
    from PIL import Image

    values = heat(shares, lies, shown.size)[:, :, None]
    colour = colours()[(values[:, :, 0] * 255).round().astype(np.uint8)]
    pixels = np.asarray(shown, dtype=np.float32)
    pixels = pixels * np.where(_seen(lies, shown.size), 1, DIMMED)[:, :, None]
    alpha = OPACITY * values
    mixed = pixels * (1 - alpha) + colour * alpha
    return Image.fromarray(mixed.round().astype(np.uint8))


def heat(shares: NDArray[np.float32], lies: Mapping, size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [rows, columns] at each pixel of the image drawn at (width, height) `size`.

    float32 [height, width]: 0 to 1, its largest share on the image; 0 where the model was shown
    nothing. Cubic between the middles of cells (Keys 1981), even from the outermost to the edges.
    """
    cells, here = lies.visible(shares)
    peak = cells.max(initial=0)
    if peak <= 0:
        return np.zeros((size[1], size[0]), np.float32)
    across = _weights(_middles(size[0], here, 0), cells.shape[1])
    down = _weights(_middles(size[1], here, 1), cells.shape[0])
    values = (down @ (cells / peak) @ across.T).clip(0, 1) * _seen(lies, size)
    made: NDArray[np.float32] = values.astype(np.float32)
    return made


def png(image: "Image.Image") -> bytes:
    """The image as a PNG file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _middles(length: int, lies: Mapping, axis: int) -> NDArray[np.float64]:
    """Where the middles of so many pixels are along an axis (0 is x), in cells from the first's."""
    original = (np.arange(length) + 0.5) * lies.size[axis] / length
    return (original - lies.origin[axis]) / lies.cell[axis] - 0.5


def _weights(places: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """What each of so many cells counts for at each place: [places, count], rows with sum 1."""
    weights = np.zeros((len(places), count), np.float32)
    first = np.floor(places).astype(int)
    rows = np.arange(len(places))
    for step in (-1, 0, 1, 2):
        away = np.abs(places - first - step)
        near = (1.5 * away - 2.5) * away**2 + 1
        far = ((-0.5 * away + 2.5) * away - 4) * away + 2
        cells = (first + step).clip(0, count - 1)
        np.add.at(weights, (rows, cells), np.where(away <= 1, near, far))
    return weights


def _seen(lies: Mapping, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels the model was shown: [height, width]."""
    along = []
    for axis in (0, 1):
        original = (np.arange(size[axis]) + 0.5) * lies.size[axis] / size[axis]
        along.append((lies.seen[axis] <= original) & (original < lies.seen[axis + 2]))
    inside: NDArray[np.bool_] = along[1][:, None] & along[0][None, :]
    return inside
