"""Damaged and hostile files, and the code that each fails with; None where a picture is shown."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.images import bmp, gif, jpeg, png
from tests.images.bombs import animations, bombs, scan_bombs
from tests.images.damage import CORRUPT, EMPTY, GREYS, OTHER, SHOWN, Hostile
from tests.images.gif import Frame
from tests.images.header_lies import header_lies
from tests.images.jpeg import segment
from tests.images.sample import noise, saved, smooth


def not_images() -> Iterator[Hostile]:
    image = smooth()
    yield Hostile("nothing", b"", (EMPTY,))
    for byte in (0x00, 0x42, 0x47, 0x52, 0x89, 0xFF):
        yield Hostile(f"the byte {byte:02x}", bytes([byte]), (OTHER,))
    texts = {
        "HTML": b"<!doctype html><title>404</title>",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(12),
        "FITS": b"SIMPLE  =                    T" + b" " * 50 + b"END".ljust(2_800),
        "zeros": bytes(1_000),
        "ZIP": b"PK\3\4" + bytes(100),
        "ELF": b"\x7fELF" + bytes(100),
        "a JPEG with text before it": b" " + saved(image, "JPEG"),
    }
    for name, data in texts.items():
        yield Hostile(name, data, (OTHER,))
    for format_ in ("TIFF", "JPEG2000", "ICNS", "PCX", "PPM", "ICO", "TGA", "DDS", "SGI", "DIB",
                    "AVIF", "QOI"):  # fmt: skip
        data = saved(image.resize((32, 32)), format_)
        yield Hostile(format_, data, (OTHER,))


def cut_short() -> Iterator[Hostile]:
    """Cut off at each structural boundary, and around it."""
    image = smooth()
    files = {
        "JPEG": saved(image, "JPEG", restart_marker_rows=1),
        "progressive JPEG": saved(image, "JPEG", progressive=True),
        "PNG": png.png(noise(9, 9, 3), 8, 2, idat_bytes=50),
        "interlaced PNG": png.png(noise(9, 9, 1), 8, 0, interlace=True, idat_bytes=30),
        "WEBP": saved(image, "WEBP"),
        "lossless WEBP": saved(image, "WEBP", lossless=True),
        "GIF": gif.gif((9, 9), [Frame(noise(9, 9)[..., 0])], GREYS[:768]),
        "BMP": bmp.bmp(9, 9, 8, bmp.rows(noise(9, 9)[..., 0], 8), palette=GREYS),
        "run-length BMP": bmp.bmp(
            9, 9, 8, bmp.run_lengths(noise(9, 9)[..., 0], False), palette=GREYS, compression=1
        ),
    }
    starts = {"JPEG": 3, "PNG": 8, "WEBP": 12, "GIF": 6, "BMP": 2}
    for name, data in files.items():
        begun = starts[name.split()[-1]]
        for end in boundaries(data):
            # What is cut off a file after its last pixel may not be missed.
            late = end >= len(data) - 24
            codes = (CORRUPT, SHOWN) if late else (CORRUPT,)
            yield Hostile(f"{name}, {end} bytes", data[:end], codes if end >= begun else (OTHER,))


def boundaries(data: bytes) -> list[int]:
    """Offsets at, before and behind the structures of a file, and some between."""
    found = {*range(1, 64), *range(64, len(data), max(1, len(data) // 24)), len(data) - 1}
    if data.startswith(b"\xff\xd8"):
        found |= {at + by for at in range(len(data)) if data[at] == 0xFF for by in (-1, 0, 1, 2, 4)}
    if data.startswith(png.MAGIC):
        at = 8
        while at < len(data):
            found |= {at - 1, at, at + 4, at + 8, at + 9}
            at += 12 + int.from_bytes(data[at : at + 4])
    return sorted(end for end in found if 0 < end < len(data))


def polyglots() -> Iterator[Hostile]:
    image = smooth()
    html = b"<html><script>alert(1)</script></html>"
    comment = segment(0xFE, html)
    yield Hostile("JPEG and HTML", jpeg.with_segments(saved(image, "JPEG"), comment), (SHOWN,))
    yield Hostile("PNG and ZIP", saved(image, "PNG") + b"PK\5\6" + bytes(18), (SHOWN,))
    yield Hostile("GIF and JavaScript", saved(image, "GIF") + b"*/=1;", (SHOWN,))
    yield Hostile("BMP and PDF", saved(image, "BMP") + b"%PDF-1.7", (SHOWN,))
    riff = b"RIFF" + struct.pack("<I", 100) + b"WAVEfmt " + bytes(92)
    yield Hostile("RIFF that is sound", riff, (OTHER,))
    yield Hostile(
        "PNG inside a JPEG's beginning", b"\xff\xd8\xff" + saved(image, "PNG"), (CORRUPT,)
    )
    grey = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(grey, "TIFF")
    yield Hostile("TIFF that ends in a JPEG", grey.getvalue() + saved(image, "JPEG"), (OTHER,))


def hostile() -> list[Hostile]:
    """All of them, made anew."""
    makers = (
        not_images, cut_short, header_lies, bombs, scan_bombs, animations, polyglots,
    )  # fmt: skip
    return [case for maker in makers for case in maker()]
