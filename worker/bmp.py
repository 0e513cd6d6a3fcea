"""BMP where Pillow misreads it: palettes that look like grey levels, and run lengths.

Pillow's run-length decoder fills up a line pixel by pixel in Python (13 KB that take five
seconds), and refuses pictures that end before their last line, as the format lets them.
"""

from typing import Any

from PIL import BmpImagePlugin, Image, ImageFile, ImagePalette

__all__ = ["RunLengths", "mend_palette", "unpack"]

_RUNS = [bytes((value,)) * 255 for value in range(256)]
_RUNS_OF_PAIRS = [bytes((value >> 4, value & 15)) * 128 for value in range(256)]


def mend_palette(image: ImageFile.ImageFile, data: bytes) -> None:
    """Have a BMP of four or eight bits read by its palette, before it is loaded.

    Pillow takes black and white for one bit a pixel, and levels that are their own index for
    eight, without a look at the depth.
    """
    depth = data[24 if data[14] == 12 else 28] if image.format == "BMP" else 0
    if (image.mode, depth) not in (("1", 4), ("1", 8), ("L", 4)):
        return
    levels = (0, 255) if image.mode == "1" else range(16)
    image._mode = "P"
    image.palette = ImagePalette.raw("RGB", bytes(level for level in levels for _ in "RGB"))
    [tile] = image.tile
    raw = "P;4" if depth == 4 and tile.codec_name == "raw" else "P"
    # Its arguments: the raw mode, and what depends on the decoder.
    image.tile = [tile._replace(args=(raw, *tuple(tile.args or ())[1:]))]


def unpack(data: bytes, width: int, height: int, four_bits: bool) -> bytearray:
    """Indices of BI_RLE8 or BI_RLE4 data, a byte each, in the order of the file's lines.

    What the data steps over, and what comes after its end, is index 0.

    Raises:
        ValueError: the data ends before the picture, without saying so.
    """
    runs = _RUNS_OF_PAIRS if four_bits else _RUNS
    pixels = bytearray(width * height)
    x = y = at = 0
    while y < height and at + 1 < len(data):
        count, value = data[at], data[at + 1]
        at += 2
        if count:  # a run
            kept = min(count, width - x)
            if kept > 0:
                start = y * width + x
                pixels[start : start + kept] = runs[value][:kept]
            x += count
        elif value > 2:  # pixels one by one, to an even number of bytes
            size = (value + 1) // 2 if four_bits else value
            literal = data[at : at + size]
            if len(literal) < size:
                break
            at += size + size % 2
            if four_bits:
                literal = b"".join(_RUNS_OF_PAIRS[both][:2] for both in literal)
            kept = min(value, width - x)
            if kept > 0:
                start = y * width + x
                pixels[start : start + kept] = literal[:kept]
            x += value
        elif value == 0:  # the end of a line
            x, y = 0, y + 1
        elif value == 1:  # the end of the picture
            return pixels
        elif at + 1 < len(data):  # a step
            x, y = x + data[at], y + data[at + 1]
            at += 2
        else:
            break
    if y < height - 1 or (y == height - 1 and x < width):
        raise ValueError("run lengths end before the picture")
    return pixels


class RunLengths(BmpImagePlugin.BmpRleDecoder):
    """Pillow's `bmp_rle`. Arguments: the raw mode, whether of four bits, and the direction."""

    def decode(self, buffer: Any) -> tuple[int, int]:  # noqa: ARG002 - read from the file
        """Decode the whole picture."""
        if self.fd is None:
            raise ValueError("no file")
        _, four_bits, direction = self.args
        width, height = self.state.xsize, self.state.ysize
        pixels = unpack(self.fd.read(), width, height, four_bits)
        self.set_as_raw(bytes(pixels), "P" if self.mode == "P" else "L", (0, direction))
        return -1, 0


Image.register_decoder("bmp_rle", RunLengths)  # after the import of Pillow's, which this replaces
