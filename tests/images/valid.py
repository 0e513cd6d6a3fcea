"""Valid files of every accepted format, and what `decode` must make of each."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.images import bmp, gif, jpeg, png
from tests.images.gif import Frame

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


def exif(orientation: int, order: str = ">", kind: int = 3) -> bytes:
    """EXIF data of the one field; `kind` a TIFF type: 1 BYTE, 3 SHORT, 4 LONG."""
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    begin = b"MM\0*" if order == ">" else b"II*\0"
    return begin + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)


# PNG


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


# JPEG


def jpegs() -> Iterator[Sample]:
    image = smooth()
    grey, cmyk = smooth(mode="L"), smooth(mode="CMYK")
    kinds: dict[str, bytes] = {
        "grey": saved(grey, "JPEG"),
        "grey, progressive": saved(grey, "JPEG", progressive=True),
        "CMYK": saved(cmyk, "JPEG"),
        "CMYK, progressive": saved(cmyk, "JPEG", progressive=True),
        "YCCK": saved(cmyk, "JPEG").replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"),
        "RGB": saved(image, "JPEG", keep_rgb=True),
        "quality 1": saved(image, "JPEG", quality=1),
        "quality 100": saved(image, "JPEG", quality=100, optimize=True),
        "restarts after each block": saved(image, "JPEG", restart_marker_blocks=1),
        "restarts after each row": saved(image, "JPEG", restart_marker_rows=1, progressive=True),
        "lossless": jpeg.lossless(np.asarray(grey)),
        "a thumbnail in EXIF": saved(
            image, "JPEG", exif=b"Exif\0\0" + exif(1) + saved(grey, "JPEG")
        ),
        "ICC in segments": saved(image, "JPEG", icc_profile=b"?" * 200_000),
        "a comment": saved(image, "JPEG", comment=b"\xff\xda\xff\xd9"),
        "fill bytes": (plain := saved(image, "JPEG"))[:2] + b"\xff\xff\xff" + plain[2:],
        "something behind it": plain + b"motion" * 1_000,
    }
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            name = f"{subsampling}{', progressive' if progressive else ''}"
            kinds[name] = saved(image, "JPEG", subsampling=subsampling, progressive=progressive)
    for name, data in kinds.items():
        assert name != "YCCK" or data != kinds["CMYK"]
        yield Sample(f"JPEG {name}", data, "JPEG")
    for name in ("ARITHMETIC", "ARITHMETIC_PROGRESSIVE", "SAMPLED_4_1_1", "SAMPLED_4_4_0",
                 "SAMPLED_EACH_ITS_OWN_WAY"):  # fmt: skip
        data = getattr(jpeg, name)
        yield Sample(f"JPEG {name.lower().replace('_', ' ')}", data, "JPEG", (32, 24))
    for width, height in ((1, 1), (1, 50), (50, 1), (16_383, 3), (3, 16_383), (8, 8), (9, 17)):
        data = saved(smooth(width, height), "JPEG")
        yield Sample(f"JPEG {width} x {height}", data, "JPEG", (width, height))
    several = saved(image, "MPO", save_all=True, append_images=[smooth(9, 9)])
    yield Sample("JPEG several pictures", several, "MPO")
    gain = b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>'
    data = jpeg.with_segments(several, jpeg.segment(jpeg.APP1, gain))
    yield Sample("JPEG a gain map", data, "JPEG")


# WebP


def webp_file(*chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF file (RFC 9649, 2.3)."""
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_chunks(data: bytes) -> dict[bytes, bytes]:
    chunks, at = {}, 12
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks[data[at : at + 4]] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return chunks


def extended(size: tuple[int, int], flags: int) -> tuple[bytes, bytes]:
    """A VP8X chunk: 0x20 ICC, 0x10 alpha, 0x08 EXIF, 0x04 XMP, 0x02 animation."""
    width, height = ((side - 1).to_bytes(3, "little") for side in size)
    return b"VP8X", bytes([flags, 0, 0, 0]) + width + height


def webps() -> Iterator[Sample]:
    image, rgba = smooth(), smooth().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    clear = on_white(np.asarray(rgba))
    lossy = saved(image, "WEBP", quality=70)
    yield Sample("WEBP lossy", lossy, "WEBP")
    exact = saved(image, "WEBP", lossless=True)
    yield Sample("WEBP lossless", exact, "WEBP", pixels=np.asarray(image))
    data = saved(rgba, "WEBP", lossless=True, exact=True)
    yield Sample("WEBP lossless with alpha", data, "WEBP", pixels=clear)
    data = saved(rgba, "WEBP", quality=70)
    with Image.open(io.BytesIO(data)) as decoded:
        yield Sample("WEBP lossy with alpha", data, "WEBP", pixels=on_white(np.asarray(decoded)))
    [(name, body)] = webp_chunks(lossy).items()
    parts = (extended(image.size, 0x2C), (b"ICCP", b"?" * 501), (name, body))
    data = webp_file(*parts, (b"EXIF", exif(1)), (b"XMP ", b"<x/>"), (b"????", b"unknown"))
    yield Sample("WEBP extended, with metadata", data, "WEBP")
    frames = [smooth(mode="L").convert("RGB"), image, image]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield Sample("WEBP animated", data, "WEBP", pixels=np.asarray(frames[0]))
    # A first frame smaller than the canvas, at (4, 2): the rest is transparent (RFC 9649, 2.7.1.1).
    small = smooth(9, 7)
    [(name, body)] = webp_chunks(saved(small, "WEBP", lossless=True)).items()
    place = b"".join(v.to_bytes(3, "little") for v in (2, 1, 8, 6, 100)) + b"\0"
    inner = name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    chunks = (
        extended((WIDTH, HEIGHT), 0x12),
        (b"ANIM", b"\0\0\xff\xff\0\0"),
        (b"ANMF", place + inner),
    )
    wanted = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    wanted[2:9, 4:13] = np.asarray(small)
    yield Sample("WEBP a small first frame", webp_file(*chunks), "WEBP", pixels=wanted)
    for width, height in ((1, 1), (1, 60), (60, 1), (16_383, 2), (2, 16_383)):
        picture = smooth(width, height)
        data = saved(picture, "WEBP", lossless=True, method=0)
        name_ = f"WEBP {width} x {height}"
        yield Sample(name_, data, "WEBP", (width, height), np.asarray(picture))


# GIF


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


# BMP


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


# Orientation

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
"""What an upright picture is made of, from rows as they lie in the file (Exif 2.32, 4.6.4 A)."""


def oriented() -> Iterator[Sample]:
    image = smooth()
    bare = saved(image, "JPEG")
    lossy = Sample("", bare, "JPEG").opaque_as_pillow_reads_it
    exact = np.asarray(image)
    [(name, body)] = webp_chunks(saved(image, "WEBP", lossless=True)).items()
    for value, turn in UPRIGHT.items():
        size = (WIDTH, HEIGHT) if value < 5 else (HEIGHT, WIDTH)
        big, little, long = exif(value), exif(value, "<"), exif(value, kind=4)
        xmp = f'<rdf:Description tiff:Orientation="{value}"/>'.encode()
        written = Image.Exif()
        written[ExifTags.Base.Make] = "A camera"
        written[ExifTags.Base.Orientation] = value
        app1 = {
            "": b"Exif\0\0" + big,
            ", little-endian": b"Exif\0\0" + little,
            ", among others": written.tobytes(),
            ", a long": b"Exif\0\0" + long,
            " in XMP": b"http://ns.adobe.com/xap/1.0/\0" + xmp,
        }
        for how, data in app1.items():
            whole = jpeg.with_segments(bare, jpeg.segment(jpeg.APP1, data))
            yield Sample(f"JPEG turned {value}{how}", whole, "JPEG", size, turn(lossy))
        for place in ("before", "after"):
            chunks = {place: [png.chunk(b"eXIf", little)]}
            whole = png.png(exact, 8, 2, **chunks)  # type: ignore[arg-type]
            yield Sample(f"PNG turned {value}, eXIf {place}", whole, "PNG", size, turn(exact))
        itxt = png.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        whole = png.png(exact, 8, 2, before=[itxt])
        yield Sample(f"PNG turned {value} in XMP", whole, "PNG", size, turn(exact))
        for how, data in (("", big), (", with a JPEG's prefix", b"Exif\0\0" + big)):
            whole = webp_file(extended(image.size, 0x08), (name, body), (b"EXIF", data))
            yield Sample(f"WEBP turned {value}{how}", whole, "WEBP", size, turn(exact))


BROKEN_EXIF = {
    "empty": b"",
    "an order alone": b"MM",
    "no order": b"??\0*\0\0\0\x08",
    "a directory outside": b"II*\0\xff\xff\xff\xff",
    "a directory in itself": b"II*\0\0\0\0\0",
    "more entries than there are": b"MM\0*\0\0\0\x08\xff\xff\x01\x0f" + exif(6)[12:20],
    "an orientation of 0": exif(0),
    "an orientation of 9": exif(9),
    "an orientation of type 7": exif(6).replace(b"\x01\x12\0\x03", b"\x01\x12\0\x07"),
    "64 KB of entries": b"MM\0*\0\0\0\x08\x15\x00" + b"\x01\x00\0\x02\0\0\xff\0\0\0\0\0" * 5_376,
}


def unharmed_by_exif() -> Iterator[Sample]:
    image = smooth()
    bare, exact = saved(image, "JPEG"), np.asarray(image)
    lossy = Sample("", bare, "JPEG").opaque_as_pillow_reads_it
    [(name, body)] = webp_chunks(saved(image, "WEBP", lossless=True)).items()
    for how, data in BROKEN_EXIF.items():
        whole = jpeg.with_segments(bare, jpeg.segment(jpeg.APP1, b"Exif\0\0" + data))
        yield Sample(f"JPEG broken EXIF: {how}", whole, "JPEG", pixels=lossy)
        whole = png.png(exact, 8, 2, before=[png.chunk(b"eXIf", data)])
        yield Sample(f"PNG broken EXIF: {how}", whole, "PNG", pixels=exact)
        whole = webp_file(extended(image.size, 0x08), (name, body), (b"EXIF", data))
        yield Sample(f"WEBP broken EXIF: {how}", whole, "WEBP", pixels=exact)


def samples() -> list[Sample]:
    """All of them, made anew."""
    makers = (
        png_kinds, png_transparent_colours, png_chunks, png_shapes,
        jpegs, webps, gifs, bmps, oriented, unharmed_by_exif,
    )  # fmt: skip
    return [sample for maker in makers for sample in maker()]
