"""Valid PNGs."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.images import png
from tests.images.sample import HEIGHT, WIDTH, Pixels, Sample, noise, on_white


def png_kinds() -> Iterator[Sample]:
    """The fifteen kinds of PNG 3, table 8, each interlaced and not."""
    for colour, depths in png.DEPTHS.items():
        for depth in depths:
            samples = noise(HEIGHT, WIDTH, png.CHANNELS[colour], depth, seed=colour + depth)
            palette = noise(1 << min(depth, 8), 1, 3, seed=9).astype(np.uint8)[:, 0]
            before = [png.chunk(b"PLTE", palette.tobytes())] if colour == 3 else []
            pixels = _eight_bits(samples, depth, colour, palette)
            for interlace in (False, True):
                name = f"colour type {colour}, {depth} bits{', Adam7' if interlace else ''}"
                data = png.png(samples, depth, colour, interlace=interlace, before=before)
                yield Sample(f"PNG {name}", data, "PNG", pixels=pixels)


def _eight_bits(samples: Any, depth: int, colour: int, palette: Pixels) -> Pixels:
    """What these samples look like: sixteen bits of grey rounded, of colour cut to the upper."""
    if colour == 3:
        return palette[samples[..., 0]]
    if depth == 16 and colour == 0:
        scaled = np.rint(samples / 257)
    else:
        scaled = samples >> 8 if depth == 16 else samples * 255 // ((1 << depth) - 1)
    levels = scaled.astype(np.uint8)
    if colour in (0, 4):
        levels = np.concatenate([np.repeat(levels[..., :1], 3, 2), levels[..., 1:]], 2)
    return on_white(levels) if colour in (4, 6) else levels


def png_transparent_colours() -> Iterator[Sample]:
    """tRNS (11.3.1.1): a level, a colour, or an alpha for each entry of the palette."""
    for depth in png.DEPTHS[0]:
        samples = noise(HEIGHT, WIDTH, 1, min(depth, 4), seed=depth) << max(0, depth - 4)
        level = int(samples[3, 3, 0])
        pixels = _eight_bits(samples, depth, 0, noise(1, 1)).copy()
        pixels[samples[..., 0] == level] = 255
        trns = png.chunk(b"tRNS", struct.pack(">H", level))
        data = png.png(samples, depth, 0, before=[trns])
        yield Sample(f"PNG a transparent level of {depth} bits", data, "PNG", pixels=pixels)
    for depth in png.DEPTHS[2]:
        samples = noise(HEIGHT, WIDTH, 3, 1, seed=depth) * (200 if depth == 8 else 0xC800)
        colour = samples[2, 2]
        pixels = _eight_bits(samples, depth, 2, noise(1, 1)).copy()
        pixels[(samples == colour).all(2)] = 255
        trns = png.chunk(b"tRNS", struct.pack(">3H", *colour.tolist()))
        data = png.png(samples, depth, 2, before=[trns])
        yield Sample(f"PNG a transparent colour of {depth} bits", data, "PNG", pixels=pixels)
    for depth in png.DEPTHS[3]:
        samples = noise(HEIGHT, WIDTH, 1, depth, seed=depth)
        palette = noise(1 << depth, 1, 3, seed=depth).astype(np.uint8)[:, 0]
        for name, alphas in (
            ("many alphas", bytes([0, 100])),
            ("one clear entry", bytes([255, 0])),
        ):
            full = np.full(1 << depth, 255, np.uint8)
            full[:2] = np.frombuffer(alphas, np.uint8)
            rgba = np.concatenate([palette, full[:, None]], 1)[samples[..., 0]]
            before = [png.chunk(b"PLTE", palette.tobytes()), png.chunk(b"tRNS", alphas)]
            data = png.png(samples, depth, 3, before=before)
            yield Sample(f"PNG {name} of {depth} bits", data, "PNG", pixels=on_white(rgba))


def png_chunks() -> Iterator[Sample]:
    """Metadata round the picture, and image data cut in every way."""
    samples = noise(HEIGHT, WIDTH, 3)
    pixels = samples.astype(np.uint8)
    packed = zlib.compress(b"a profile, or a text" * 30_000)
    text = {
        "gAMA": png.chunk(b"gAMA", struct.pack(">I", 45_455)),
        "cHRM": png.chunk(b"cHRM", struct.pack(">8I", *[30_000] * 8)),
        "sRGB": png.chunk(b"sRGB", b"\0"),
        "pHYs": png.chunk(b"pHYs", struct.pack(">IIB", 2_835, 2_835, 1)),
        "iCCP of 600 kB": png.chunk(b"iCCP", b"large\0\0" + packed),
        "tEXt": png.chunk(b"tEXt", b"Title\0\xe9"),
        "zTXt of 600 kB": png.chunk(b"zTXt", b"Comment\0\0" + packed),
        "iTXt": png.chunk(b"iTXt", "Title\0\0\0de\0Titel\0Übung".encode()),
        "iTXt of 600 kB": png.chunk(b"iTXt", b"Title\0\1\0\0\0" + packed),
        "bKGD": png.chunk(b"bKGD", b"\0\1\0\2\0\3"),
        "tIME": png.chunk(b"tIME", struct.pack(">HBBBBB", 2026, 1, 31, 12, 0, 0)),
        "cICP": png.chunk(b"cICP", b"\1\x0d\0\1"),
        "a private chunk": png.chunk(b"prVt", b"?" * 100),
        "suggested PLTE": png.chunk(b"PLTE", bytes(range(9))),
    }
    for name, extra in text.items():
        yield Sample(f"PNG {name}", png.png(samples, 8, 2, before=[extra]), "PNG", pixels=pixels)
    data = png.png(samples, 8, 2, before=list(text.values()), after=[text["tEXt"], text["tIME"]])
    yield Sample("PNG all of it, before and after", data, "PNG", pixels=pixels)
    for kind in range(5):
        data = png.png(samples, 8, 2, filters=[kind])
        yield Sample(f"PNG filter {kind} alone", data, "PNG", pixels=pixels)
    for name, options in (
        ("IDATs of one byte", {"idat_bytes": 1}),
        ("IDATs of seven bytes, and empty ones", {"idat_bytes": 7, "empty_idats": True}),
    ):
        data = png.png(samples, 8, 2, **options)  # type: ignore[arg-type]
        yield Sample(f"PNG {name}", data, "PNG", pixels=pixels)
    frames = png.chunk(b"acTL", struct.pack(">II", 2, 0))
    control = struct.pack(">5I2H2B", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    second = [
        png.chunk(b"fcTL", struct.pack(">I", 1) + control[4:]),
        png.chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(HEIGHT * (1 + 3 * WIDTH)))),
    ]
    for name, before in (
        ("animated", [frames, png.chunk(b"fcTL", control)]),
        ("animated, with a picture beside the animation", [frames]),
    ):
        data = png.png(samples, 8, 2, before=before, after=second)
        yield Sample(f"PNG {name}", data, "PNG", pixels=pixels)


def png_shapes() -> Iterator[Sample]:
    for width, height in ((1, 1), (1, 40), (40, 1), (16_383, 2), (2, 16_383), (3, 5)):
        for interlace in (False, True):
            samples = noise(height, width, 3)
            data = png.png(samples, 8, 2, interlace=interlace)
            name = f"PNG {width} x {height}{', Adam7' if interlace else ''}"
            yield Sample(name, data, "PNG", (width, height), samples.astype(np.uint8))
