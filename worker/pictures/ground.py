"""The image that maps are shown on, at the size of the picture."""

from io import BytesIO
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Ground = Union["Image.Image", NDArray[np.uint8]]
"""An image, upright: Pillow's, or uint8 RGB [H, W, 3]."""


_QUALITIES = (88, 75, 60, 45, 30, 15)


def within(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size (width, height), or one of its aspect ratio whose longer side is `longest`."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def ground(image: Ground, size: tuple[int, int]) -> "Image.Image":
    """The image as RGB of (width, height) `size`."""
    from PIL import Image

    shown = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    shown = shown.convert("RGB")
    if shown.size == size:
        return shown
    return shown.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def jpeg(
    image: Ground, size: tuple[int, int], longest: int, most_bytes: int
) -> tuple[bytes, tuple[int, int]]:
    """The image as a JPEG of no more than `most_bytes`, and its (width, height).

    The best of a few qualities that has room, with sides of `size`'s ratio, the longer `longest`
    at most; half of that, and so on, where none has. most_bytes: at least 700.
    """
    while True:
        shown = ground(image, within(*size, longest))
        for quality in _QUALITIES:
            file = BytesIO()
            shown.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= most_bytes:
                return file.getvalue(), shown.size
        longest //= 2


def size_of(image: Ground) -> tuple[int, int]:
    """(width, height) in pixels."""
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else image.size
