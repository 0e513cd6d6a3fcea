"""Pixels of any of Pillow's modes as RGB: transparency on white, sixteen bits scaled to eight.

One kind of valid files that Pillow misreads is mended here: PNGs with a transparent colour, at
other depths than eight bits.
"""

from typing import Literal

import numpy as np
from PIL import Image

__all__ = ["Alpha", "mend_transparency", "to_rgb"]

Alpha = Literal["white", "drop"]
"""Transparent pixels are laid on white, or shown in colours that nobody was meant to see."""

_STRIP_PIXELS = 1 << 20


def to_rgb(image: Image.Image, alpha: Alpha) -> Image.Image:
    """The image in RGB; itself, where it is that already.

    In strips, so that beside the source and the result hardly anything is held: 50 MP take 200 MB
    in each of Pillow's modes of three or four channels.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_strip_rgb(strip, alpha), (0, top))
    return rgb


def _strip_rgb(image: Image.Image, alpha: Alpha) -> Image.Image:
    if image.mode.startswith("I"):
        # Sixteen bits of grey, which convert("RGB") would clip to white.
        levels = np.asarray(image)
        grey = np.rint(np.clip(levels.astype(np.float32), 0, 65_535) / 257).astype(np.uint8)
        if alpha == "white" and "transparency" in image.info:
            grey[levels == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow's way from here to RGBA would lose the alpha
    if image.has_transparency_data and alpha == "white":
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the palette's colours; straight to RGB Pillow warns
    return image.convert("RGB")


def mend_transparency(image: Image.Image, data: bytes) -> None:
    """Bring a PNG's transparent grey or colour (tRNS) to eight bits, as Pillow did the pixels.

    The file gives it at the file's own depth (PNG, third edition, 11.3.1.1). Of sixteen bits of
    colour only the upper eight are left, and only they are compared.
    """
    value = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or isinstance(value, bytes):
        return
    depth = data[24]  # in the header, which comes first
    most = (1 << depth) - 1

    def eight(level: int) -> int:
        return level >> 8 if depth == 16 else (level & most) * 255 // most

    if isinstance(value, int):
        image.info["transparency"] = eight(value)
    elif value is not None:
        image.info["transparency"] = tuple(map(eight, value))
