"""Valid BMPs."""

from collections.abc import Iterator

import numpy as np

from tests.images import bmp
from tests.images.sample import HEIGHT, WIDTH, Sample, noise, on_white


def bmps() -> Iterator[Sample]:
    for bits in (1, 4, 8):
        indices = noise(HEIGHT, WIDTH, 1, bits, seed=bits)[..., 0]
        palette = noise(1 << bits, 1, 3, seed=bits).astype(np.uint8)[:, 0]
        pixels, lines = palette[indices], bmp.rows(indices, bits)
        for header, entry in ((12, 3), (40, 4), (108, 4), (124, 4)):
            data = bmp.bmp(
                WIDTH, HEIGHT, bits, lines, palette=bmp.quads(palette, entry), header=header
            )
            yield Sample(f"BMP {bits} bits, header of {header}", data, "BMP", pixels=pixels)
        data = bmp.bmp(
            WIDTH, -HEIGHT, bits, bmp.rows(indices, bits, top_down=True), palette=bmp.quads(palette)
        )
        yield Sample(f"BMP {bits} bits, from the top", data, "BMP", pixels=pixels)
        two = noise(HEIGHT, WIDTH, 1, 1, seed=7)[..., 0]
        black_white = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
        data = bmp.bmp(
            WIDTH, HEIGHT, bits, bmp.rows(two, bits), palette=bmp.quads(black_white), colours=2
        )
        yield Sample(f"BMP {bits} bits, black and white", data, "BMP", pixels=black_white[two])
        dark = np.repeat(np.arange(1 << bits, dtype=np.uint8)[:, None], 3, 1)
        data = bmp.bmp(WIDTH, HEIGHT, bits, lines, palette=bmp.quads(dark))
        yield Sample(f"BMP {bits} bits, each level its index", data, "BMP", pixels=dark[indices])
        if bits > 1:
            kind = bmp.RLE4 if bits == 4 else bmp.RLE8
            for name, colours, levels in (
                ("", palette, np.sort(indices, 1)),
                (" of black and white", black_white, two),
                (" of dark levels", dark, indices),
            ):
                packed = bmp.run_lengths(levels, four=bits == 4)
                data = bmp.bmp(
                    WIDTH, HEIGHT, bits, packed, palette=bmp.quads(colours), compression=kind,
                    colours=len(colours),
                )  # fmt: skip
                wanted = colours[levels]
                yield Sample(f"BMP {bits} bits, run lengths{name}", data, "BMP", pixels=wanted)
    # Three lines of four: a run, a step of one right and one up, a pixel, the end.
    stepped = b"\x02\x11\0\2\1\1\1\x11\0\1"
    for bits, compression in ((8, bmp.RLE8), (4, bmp.RLE4)):
        colours = bmp.quads(palette[: 1 << bits])
        data = bmp.bmp(4, 3, bits, stepped, palette=colours, compression=compression)
        index = 0x11 if bits == 8 else 1
        wanted = palette[np.array([[0] * 4, [0, 0, 0, index], [index, index, 0, 0]])]
        yield Sample(f"BMP {bits} bits, run lengths with a step", data, "BMP", (4, 3), wanted)
    colour = noise(HEIGHT, WIDTH, 3).astype(np.uint8)
    for header in (12, 40, 124):
        data = bmp.bmp(WIDTH, HEIGHT, 24, bmp.rows(colour[..., ::-1], 24), header=header)
        yield Sample(f"BMP 24 bits, header of {header}", data, "BMP", pixels=colour)
    four = np.concatenate([colour[..., ::-1], noise(HEIGHT, WIDTH).astype(np.uint8)], 2)
    data = bmp.bmp(WIDTH, HEIGHT, 32, bmp.rows(four, 32))
    yield Sample("BMP 32 bits, the fourth unused", data, "BMP", pixels=colour)
    masks = (0xFF0000, 0xFF00, 0xFF)
    data = bmp.bmp(WIDTH, HEIGHT, 32, bmp.rows(four, 32), compression=3, masks=masks)
    yield Sample("BMP 32 bits by masks", data, "BMP", pixels=colour)
    rgba = np.concatenate([colour, four[..., 3:]], 2)
    for header in (108, 124):
        data = bmp.bmp(
            WIDTH, HEIGHT, 32, bmp.rows(four, 32), compression=3, masks=(*masks, 0xFF000000),
            header=header,
        )  # fmt: skip
        yield Sample(f"BMP alpha, header of {header}", data, "BMP", pixels=on_white(rgba))
    for name, options, shifts in (
        ("555", {}, (10, 5, 0)),
        ("555 by masks", {"compression": 3, "masks": (0x7C00, 0x3E0, 0x1F)}, (10, 5, 0)),
        ("565 by masks", {"compression": 3, "masks": (0xF800, 0x7E0, 0x1F)}, (11, 5, 0)),
    ):
        most = np.array([31, 63 if "565" in name else 31, 31], np.uint32)
        levels = noise(HEIGHT, WIDTH, 3, 5) % (most + 1)
        words = sum(levels[..., band] << shift for band, shift in enumerate(shifts))
        data = bmp.bmp(WIDTH, HEIGHT, 16, bmp.rows(np.asarray(words), 16), **options)  # type: ignore[arg-type]
        yield Sample(f"BMP {name}", data, "BMP", pixels=(levels * 255 // most).astype(np.uint8))
    for width, height in ((1, 1), (1, 80), (80, 1), (16_383, 2), (2, 16_383)):
        pixels = noise(height, width, 3).astype(np.uint8)
        data = bmp.bmp(width, height, 24, bmp.rows(pixels[..., ::-1], 24))
        yield Sample(f"BMP {width} x {height}", data, "BMP", (width, height), pixels)
