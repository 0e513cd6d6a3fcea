"""Where an image's pixels go before the ViT sees them: pure functions of sizes, in whole pixels.

Four modes bring an image of any shape to a grid of patches:

    stretch  squash to the checkpoint's size, aspect ratio not kept: BLIP's own preprocessing
    pad      fit into that size, aspect ratio kept, the rest filled (letterbox)
    crop     the largest centred part of that size's aspect ratio
    native   squash to whichever of a few patch grids, none of more patches, is nearest in aspect

Sizes are (width, height) as Pillow has them, unless they are called (height, width); grids are
(patches down, patches across).
"""

from dataclasses import dataclass
from math import log, sqrt
from typing import Literal, get_args

Mode = Literal["stretch", "pad", "crop", "native"]
Grid = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""

MODES: tuple[Mode, ...] = get_args(Mode)
MAX_PATCHES = 4
"""An image may have this many times the patches that the checkpoint was trained on."""
_ASPECTS = (4 / 3, 16 / 9, 3.0, 4.0)


@dataclass(frozen=True)
class Placement:
    """One image's way onto its canvas: take `box`, resize it to `resized`, put it at `offset`.

    Sizes are (width, height), the offset is (left, top); `box` is None for the whole image.
    """

    canvas: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    box: Box | None = None


def place(mode: Mode, width: int, height: int, size: tuple[int, int], patch_size: int) -> Placement:
    """How an image of width x height pixels gets to a canvas of `size` (height, width) or, in
    native mode, to one of the same number of patches or a few less."""
    canvas = size[1], size[0]
    if mode == "pad":
        return letterbox(width, height, canvas)
    if mode == "crop":
        return Placement(canvas, canvas, box=centre_box(width, height, canvas))
    if mode == "native":
        grids = aspect_grids(size[0] // patch_size, size[1] // patch_size)
        rows, columns = nearest_grid(grids, width, height)
        canvas = columns * patch_size, rows * patch_size
    return Placement(canvas, canvas)


def letterbox(width: int, height: int, canvas: tuple[int, int]) -> Placement:
    """The largest size of the same aspect ratio that fits the canvas, in its middle."""
    scale = min(canvas[0] / width, canvas[1] / height)
    resized = tuple(
        min(side, max(1, round(length * scale)))
        for side, length in zip(canvas, (width, height), strict=True)
    )
    offset = (canvas[0] - resized[0]) // 2, (canvas[1] - resized[1]) // 2
    return Placement(canvas, (resized[0], resized[1]), offset)


def centre_box(width: int, height: int, canvas: tuple[int, int]) -> Box | None:
    """The largest centred box of the canvas's aspect ratio; None where that is the whole image."""
    wide, high = width, height
    if width * canvas[1] > height * canvas[0]:
        wide = max(1, round(height * canvas[0] / canvas[1]))
    else:
        high = max(1, round(width * canvas[1] / canvas[0]))
    if (wide, high) == (width, height):
        return None
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def aspect_grids(rows: int, columns: int) -> tuple[Grid, ...]:
    """At most nine grids of no more than rows x columns patches, that one first.

    The others are about 4/3, 16/9, 3 and 4 times as wide, or as high: for 24 x 24 they are
    21 x 27, 18 x 32, 14 x 41, 12 x 48 and these turned by a quarter.
    """
    budget = rows * columns
    grids = [(rows, columns)]
    for aspect in _ASPECTS:
        fewer_rows = max(1, round(rows / sqrt(aspect)))
        fewer_columns = max(1, round(columns / sqrt(aspect)))
        grids.append((fewer_rows, budget // fewer_rows))
        grids.append((budget // fewer_columns, fewer_columns))
    return tuple(dict.fromkeys(grids))


def nearest_grid(grids: tuple[Grid, ...], width: int, height: int) -> Grid:
    """The grid whose aspect ratio differs least from the image's, by its logarithm."""
    aspect = log(width / height)
    return min(grids, key=lambda grid: abs(log(grid[1] / grid[0]) - aspect))


def size_at(own: tuple[int, int], patch_size: int, resolution: int | None) -> tuple[int, int]:
    """The (height, width) to encode at: the checkpoint's own, or a square of side `resolution`.

    Raises ValueError for a resolution that is no multiple of the patch size, below the
    checkpoint's own size or above MAX_PATCHES times its patches.
    """
    if resolution is None:
        return own
    if resolution % patch_size:
        raise ValueError(
            f"resolution must be a multiple of the patch size, {patch_size}, not {resolution}"
        )
    lowest = min(own)
    highest = int(sqrt(MAX_PATCHES * own[0] * own[1])) // patch_size * patch_size
    if not lowest <= resolution <= highest:
        raise ValueError(f"resolution must be {lowest} to {highest} here, not {resolution}")
    return resolution, resolution


def check_tiles(height: int, width: int, own: tuple[int, int], patch_size: int) -> None:
    """Raise ValueError unless patches tile height x width and are not too many for `own` size."""
    most = MAX_PATCHES * own[0] * own[1]
    if height < 1 or width < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"a float tensor is resized already, to multiples of the patch size, {patch_size}; "
            f"{height}x{width} would lose its edge"
        )
    if height * width > most:
        raise ValueError(
            f"{height}x{width} has more than {MAX_PATCHES} times the patches of {own[0]}x{own[1]}"
        )


def check_box(box: Box, width: int, height: int) -> None:
    """Raise ValueError unless `box` has an area and lies inside an image of width x height."""
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise ValueError(
            f"region {left},{top},{right},{bottom} is empty: it is left,top,right,bottom"
        )
    if left < 0 or top < 0 or right > width or bottom > height:
        raise ValueError(
            f"region {left},{top},{right},{bottom} leaves the image of {width}x{height} pixels"
        )
