"""A file and its picture; pictures to make files of."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


WIDTH, HEIGHT = 37, 21


@dataclass(frozen=True)
class Sample:
    """A file, and its picture: given as pixels, or None where plain Pillow's reading is right."""

    name: str
    data: bytes
    format: str
    size: tuple[int, int] = (WIDTH, HEIGHT)
    pixels: Pixels | None = None

    @property
    def opaque_as_pillow_reads_it(self) -> Pixels:
        with Image.open(io.BytesIO(self.data)) as image:
            return np.asarray(image.convert("RGB"))


def noise(height: int, width: int, channels: int = 1, depth: int = 8, seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1 << depth, (height, width, channels), dtype=np.uint32)


def smooth(width: int = WIDTH, height: int = HEIGHT, mode: str = "RGB") -> Image.Image:
    """Colour that changes slowly, as in photographs."""
    coarse = Image.fromarray(noise(4, 5, 3).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def on_white(rgba: Pixels) -> Pixels:
    picture = Image.fromarray(rgba)
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
