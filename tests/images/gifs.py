"""Valid GIFs."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tests.images import gif
from tests.images.gif import Frame
from tests.images.sample import HEIGHT, WIDTH, Sample, noise


def gifs() -> Iterator[Sample]:
    for bits in range(1, 9):
        indices = noise(HEIGHT, WIDTH, 1, bits, seed=bits)[..., 0]
        palette = noise(1 << bits, 1, 3, seed=bits).astype(np.uint8)[:, 0]
        raw = palette.tobytes()
        pixels = palette[indices]
        for version in (b"87a", b"89a"):
            data = gif.gif((WIDTH, HEIGHT), [Frame(indices)], raw, version)
            yield Sample(f"GIF{version.decode()} {bits} bits", data, "GIF", pixels=pixels)
        one = Frame(indices, interlaced=True)
        data = gif.gif((WIDTH, HEIGHT), [one], raw)
        yield Sample(f"GIF {bits} bits, interlaced", data, "GIF", pixels=pixels)
        data = gif.gif((WIDTH, HEIGHT), [replace(one, palette=raw)], bytes(6))
        yield Sample(f"GIF {bits} bits, a palette of its own", data, "GIF", pixels=pixels)
        clear = pixels.copy()
        clear[indices == 1] = 255
        data = gif.gif((WIDTH, HEIGHT), [replace(one, transparent=1)], raw)
        yield Sample(f"GIF {bits} bits, transparent", data, "GIF", pixels=clear)
    pair = gif.gif((WIDTH, HEIGHT), [replace(one, transparent=1), Frame(indices)], raw)
    yield Sample("GIF animated", pair, "GIF", pixels=clear)
    extensions = [
        gif.extension(0xFF, b"NETSCAPE2.0", b"\1\0\0"),
        gif.extension(0xFE, b"a comment", b"x" * 255),
        gif.extension(0xFE),
        gif.extension(0x01, bytes(12), b"text"),
        gif.extension(0x77),
    ]
    data = gif.gif((WIDTH, HEIGHT), [Frame(indices)], raw, extensions=extensions)
    yield Sample("GIF extensions", data, "GIF", pixels=pixels)
    grey = bytes(v for level in range(256) for v in [level] * 3)
    data = gif.gif((WIDTH, HEIGHT), [Frame(indices)], grey)
    yield Sample(
        "GIF grey", data, "GIF", pixels=np.repeat(indices[..., None].astype(np.uint8), 3, 2)
    )
    data = gif.gif((WIDTH, HEIGHT), [Frame(indices)])
    yield Sample("GIF without any palette", data, "GIF")
    small = Frame(indices[:9, :11], 5, 4, disposal=2)
    # Outside a small first frame: transparent where the frame has a transparent index; else, where
    # browsers would show what lies below, entry 0 of the palette, as Pillow does.
    for name, frame, outside in (
        ("", small, palette[0]),
        (", transparent", replace(small, transparent=1), [255, 255, 255]),
    ):
        wanted = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        wanted[:] = outside
        wanted[4:13, 5:16] = (clear if frame.transparent else pixels)[:9, :11]
        data = gif.gif((WIDTH, HEIGHT), [frame], raw)
        yield Sample(f"GIF a small first frame, offset{name}", data, "GIF", pixels=wanted)
    for width, height in ((1, 1), (1, 70), (70, 1), (16_383, 2), (2, 16_383)):
        indices = noise(height, width)[..., 0]
        data = gif.gif((width, height), [Frame(indices)], raw)
        yield Sample(f"GIF {width} x {height}", data, "GIF", (width, height), palette[indices])
