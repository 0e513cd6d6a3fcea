"""Damaged and hostile files, and the code that each fails with; None where a picture is shown."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.images import bmp, gif, jpeg, png
from tests.images.gif import Frame
from tests.images.jpeg import segment
from tests.images.valid import extended, noise, saved, smooth, webp_chunks, webp_file
from worker.errors import ErrorCode

EMPTY = ErrorCode.IMAGE_EMPTY
OTHER = ErrorCode.IMAGE_UNSUPPORTED_FORMAT
LARGE = ErrorCode.IMAGE_TOO_LARGE
COMPLEX = ErrorCode.IMAGE_TOO_COMPLEX
CORRUPT = ErrorCode.IMAGE_CORRUPT
SHOWN = None


@dataclass(frozen=True)
class Hostile:
    """A file and what must come of it: one of these codes."""

    name: str
    data: bytes
    codes: tuple[ErrorCode | None, ...]


GREYS = bytes(range(256)) * 4
TWO_MIB = 2 << 20


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


def header_lies() -> Iterator[Hostile]:
    small = png.png(noise(9, 9, 1))
    rows = zlib.compress(bytes(10 * 9))
    for width, height, codes in (
        (0, 9, (CORRUPT,)),
        (9, 0, (CORRUPT,)),
        (0, 0, (CORRUPT,)),
        (9, 10, (SHOWN,)),  # Pillow leaves lines black that are missing as a whole
        (900, 900, (CORRUPT,)),
        (16_383, 3_000, (CORRUPT,)),
        (9, 8, (SHOWN,)),
        (16_384, 1, (LARGE,)),
        (1, 16_384, (LARGE,)),
        (7_072, 7_072, (LARGE,)),
        (16_383, 16_383, (LARGE,)),
        (2**31 - 1, 1, (LARGE,)),
        (2**31 - 1, 2**31 - 1, (LARGE,)),
        (2**32 - 1, 2**32 - 1, (LARGE,)),
    ):
        data = png.plain(size=png.header(width, height), idat=rows)
        yield Hostile(f"PNG that says {width} x {height}", data, codes)
    plain = saved(smooth(), "JPEG")
    for width, height, codes in (
        (0, 21, (CORRUPT,)),
        (37, 0, (CORRUPT,)),
        (37, 22, (SHOWN,)),
        (37, 400, (SHOWN,)),  # libjpeg makes up for lines that are missing at the end
        (37, 2, (SHOWN,)),
        (16_384, 2, (LARGE,)),
        (65_535, 65_535, (LARGE,)),
        (16_383, 3_000, (SHOWN,)),
    ):
        data = jpeg.with_size(plain, width, height)
        yield Hostile(f"JPEG that says {width} x {height}", data, codes)
    indices = noise(9, 9)[..., 0]
    whole = gif.gif((9, 9), [Frame(indices)], GREYS[:768])
    for width, height, codes in (
        (0, 0, (SHOWN,)),
        (16_383, 3_000, (SHOWN,)),
        (65_535, 65_535, (LARGE,)),
        (16_384, 9, (LARGE,)),
    ):
        data = whole[:6] + struct.pack("<HH", width, height) + whole[10:]
        yield Hostile(f"GIF whose screen says {width} x {height}", data, codes)
    at = whole.index(b",", 13 + 768)
    for left, top, width, height, codes in (
        (0, 0, 65_535, 65_535, (LARGE,)),
        (65_535, 65_535, 1, 1, (LARGE,)),
        (0, 0, 0, 0, (CORRUPT,)),
        (0, 0, 9, 400, (CORRUPT,)),
        (0, 0, 16_383, 3_000, (CORRUPT,)),
    ):
        place = struct.pack("<HHHH", left, top, width, height)
        data = whole[: at + 1] + place + whole[at + 9 :]
        yield Hostile(f"GIF whose frame says {width} x {height} at {left},{top}", data, codes)
    disposed = b"!\xf9\4\x08\0\0\0\0"
    data = whole[:at] + disposed + b"," + struct.pack("<4H", 0, 0, 65_535, 65_535) + whole[at + 9 :]
    yield Hostile("GIF that disposes of 4 gigapixels", data, (LARGE,))
    lines = bmp.rows(indices, 8)
    for width, height, codes in (
        (0, 9, (CORRUPT,)),
        (9, 0, (CORRUPT,)),
        (9, 400, (CORRUPT,)),
        (-9, 9, (LARGE,)),
        (2**31 - 1, 2**31 - 1, (LARGE,)),
        (9, -(2**31), (LARGE,)),
        (16_384, 1, (LARGE,)),
        (16_383, 3_000, (CORRUPT,)),
    ):
        data = bmp.bmp(width, height, 8, lines, palette=GREYS)
        yield Hostile(f"BMP that says {width} x {height}", data, codes)
    for bits in (0, 2, 3, 64, 65_535):
        yield Hostile(f"BMP of {bits} bits", bmp.bmp(9, 9, bits, lines, palette=GREYS), (CORRUPT,))
    for header in (0, 4, 16, 41, 255, 2**31):
        data = bmp.bmp(9, 9, 8, lines, palette=GREYS)
        data = data[:14] + struct.pack("<I", header) + data[18:]
        yield Hostile(f"BMP with a header of {header}", data, (CORRUPT,))
    for offset in (0, 13, 10**6, 2**32 - 1):
        data = bmp.bmp(9, 9, 8, lines, palette=GREYS)
        data = data[:10] + struct.pack("<I", offset) + data[14:]
        codes = (SHOWN,) if offset < 100 else (CORRUPT,)
        yield Hostile(f"BMP with pixels at {offset}", data, codes)
    lossy = saved(smooth(), "WEBP")
    [(name, body)] = webp_chunks(lossy).items()
    for size, codes in (
        ((1, 1), (CORRUPT,)),
        ((16_383, 3_000), (CORRUPT,)),
        ((2**24, 2**24), (LARGE,)),
    ):
        data = webp_file(extended(size, 0), (name, body))
        yield Hostile(f"WEBP whose canvas says {size}", data, codes)
    data = lossy[:26] + struct.pack("<HH", 16_383, 16_383) + lossy[30:]
    yield Hostile("WEBP that says 16383 x 16383", data, (LARGE,))
    yield Hostile(
        "WEBP of no frame", webp_file(extended((9, 9), 2), (b"ANIM", bytes(6))), (CORRUPT,)
    )
    data = lossy[:4] + b"\xff\xff\xff\xff" + lossy[8:]
    yield Hostile("WEBP of 4 GiB, as it says", data, (CORRUPT,))
    yield Hostile(
        "PNG whose chunk says 4 GiB", small[:8] + b"\xff\xff\xff\xff" + small[12:], (CORRUPT,)
    )
    yield Hostile("PNG without a header", png.MAGIC + small[33:], (CORRUPT,))
    yield Hostile("PNG without pixels", small[:33] + png.chunk(b"IEND"), (CORRUPT,))
    yield Hostile("PNG of depth 3", png.plain(size=png.header(1, 1, 3)), (CORRUPT,))
    yield Hostile("PNG of colour type 5", png.plain(size=png.header(1, 1, 8, 5)), (CORRUPT,))
    yield Hostile("PNG of filter 9", png.plain(idat=zlib.compress(b"\x09\0")), (CORRUPT,))
    yield Hostile("PNG that is not deflated", png.plain(idat=b"no stream"), (CORRUPT,))
    bad = bytearray(small)
    bad[29] ^= 1
    yield Hostile("PNG whose header has a wrong CRC", bytes(bad), (CORRUPT,))
    bad = bytearray(small)
    bad[-13] ^= 1
    yield Hostile("PNG whose pixels have a wrong CRC", bytes(bad), (SHOWN,))
    wrong = png.chunk(b"tEXt", b"Title\0text")[:-1] + b"?"
    yield Hostile("PNG whose text has a wrong CRC", png.plain(wrong), (SHOWN,))
    yield Hostile("PNG that tells of no palette", png.plain(size=png.header(1, 1, 8, 3)), (SHOWN,))
    trns = png.plain(png.chunk(b"tRNS", b"\1"))
    yield Hostile("PNG with half a transparent level", trns, (CORRUPT,))


def bombs() -> Iterator[Hostile]:
    zeros = zlib.compress(bytes(8 * TWO_MIB), 9)
    for name, begin in (("iCCP", b"x\0\0"), ("zTXt", b"x\0\0"), ("iTXt", b"x\0\1\0\0\0")):
        one = png.chunk(name.encode(), begin + zeros)
        yield Hostile(f"PNG {name} of 16 MiB", png.plain(one), (SHOWN,))
        packed = begin + zlib.compress(bytes(256 * 1_024), 9)
        many = png.chunk(name.encode(), packed) * (TWO_MIB // len(packed))
        yield Hostile(f"PNG {name} without end", png.plain(many), (SHOWN,))
    yield Hostile("PNG pixels that go on", png.plain(idat=zeros), (SHOWN,))
    tiny = png.chunk(b"IDAT") * 100_000
    yield Hostile("PNG of 100,000 empty IDATs", png.plain(tiny), (SHOWN,))
    tiny = png.chunk(b"prVt") * 100_000
    yield Hostile("PNG of 100,000 empty chunks", png.plain(tiny), (SHOWN,))
    plain = saved(smooth(), "JPEG")
    for name, junk in (
        ("EXIF segments", segment(0xE1, b"Exif\0\0" + bytes(10)) * 100_000),
        ("comments", segment(0xFE) * 400_000),
        ("profiles", segment(0xE2, b"ICC_PROFILE\0\1\1") * 100_000),
        ("fill bytes", b"\xff" * TWO_MIB),
        ("restart markers", b"\xff\xd0" * (TWO_MIB // 2)),
        ("zeros", bytes(TWO_MIB)),
    ):
        data = plain[:20] + junk + plain[20:]
        yield Hostile(f"JPEG with 2 MB of {name}", data, (SHOWN,))
        data = plain[:-2] + junk + plain[-2:]
        yield Hostile(f"JPEG with 2 MB of {name} behind its pixels", data, (SHOWN,))
    huge = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x87\x69\0\x04\0\0\0\1\0\0\0\x08" * 5_000
    data = jpeg.with_segments(plain, segment(0xE1, huge))
    yield Hostile("JPEG whose EXIF is a circle", data, (SHOWN,))
    mpf = b"MPF\0MM\0*\0\0\0\x08\x14\x00" + b"\xb0\x02\0\x07\0\0\xff\0\0\0\0\0" * 5_120
    data = jpeg.with_segments(plain, segment(0xE2, mpf))
    yield Hostile("JPEG whose list of pictures lies", data, (SHOWN,))
    indices = noise(9, 9)[..., 0]
    for name, extension in (
        ("a comment of 1,000,000 blocks", b"!\xfe" + b"\1a" * 1_000_000 + b"\0"),
        ("an extension of 1,000,000 blocks", b"!\xff" + b"\1a" * 1_000_000 + b"\0"),
        ("100,000 comments", gif.extension(0xFE, b"a") * 100_000),
    ):
        data = gif.gif((9, 9), [Frame(indices)], GREYS[:768], extensions=[extension])
        yield Hostile(f"GIF with {name}", data, (SHOWN,))
    empty = b"\0\2\xff\xff" * 100_000
    for name, packed, codes in (
        ("steps beyond the picture", empty, (SHOWN,)),
        ("lines that are empty", b"\0\0" * 100_000, (SHOWN,)),
        ("lines that hardly begin", b"\1\1\0\0" * 300, (SHOWN,)),
        ("runs over the edge", b"\xff\1" * 100_000, (CORRUPT,)),
    ):
        data = bmp.bmp(3_000, 300, 8, packed, palette=GREYS, compression=1)
        yield Hostile(f"run-length BMP of {name}", data, codes)
        data = bmp.bmp(3_000, 300, 4, packed, palette=GREYS[:64], compression=2)
        yield Hostile(f"four-bit run-length BMP of {name}", data, codes)


def scan_bombs() -> Iterator[Hostile]:
    plain = saved(smooth(), "JPEG")
    progressive = saved(smooth(), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    app = segment(0xE3, b"?" * 9)
    for name, between in (
        ("plainly", b""),
        ("behind fill bytes", b"\xff" * 9),
        ("behind comments", segment(0xFE, b"\xff\xd9")),
        ("behind an empty segment", b"\xff\xfe\0\0"),
        ("behind a segment of one byte", b"\xff\xe5\0\1"),
        ("behind DNL", segment(0xDC, b"\0\x15")),
        ("behind an empty DNL", b"\xff\xdc\0\0"),
        ("behind restart markers", b"\xff\xd0\xff\xd7"),
        ("behind TEM", b"\xff\x01"),
        ("behind junk", b"junk\xff\0junk"),
        ("behind an application's segment", app),
    ):
        for extra, codes in ((30, (SHOWN,)), (100, (COMPLEX,))):
            data = jpeg.more_scans(progressive, extra, between)
            yield Hostile(f"JPEG with {extra} scans more, {name}", data, codes)
    yield Hostile("JPEG with 400 scans behind its one", jpeg.more_scans(plain, 400), (COMPLEX,))
    for name, marker in (("APP1", 0xE1), ("APP15", 0xEF), ("a comment", 0xFE)):
        data = jpeg.with_segments(progressive, segment(marker, scan * (60_000 // len(scan))))
        yield Hostile(f"JPEG with scans inside {name}", data, (SHOWN,))
    thumbnail = segment(0xE1, b"Exif\0\0" + jpeg.more_scans(progressive, 90)[:60_000])
    yield Hostile(
        "JPEG with a thumbnail of 100 scans", jpeg.with_segments(plain, thumbnail), (SHOWN,)
    )
    yield Hostile("JPEG with scans behind its end", progressive + scan * 200, (SHOWN,))
    data = jpeg.with_segments(progressive, segment(0xDA, b"\1\1\0\0\x3f\0"))
    yield Hostile("JPEG whose scan comes before its frame", data, (CORRUPT,))
    again = jpeg.more_scans(progressive, 200, between=b"\xff\xd8")
    yield Hostile("JPEG that begins again and again", again, (COMPLEX,))


def animations() -> Iterator[Hostile]:
    tiny = gif.frame_bytes(Frame(noise(2, 2, 1, 1)[..., 0]), b"")
    data = gif.screen(9, 9, GREYS[:768]) + tiny * 10_000 + gif.TRAILER
    yield Hostile("GIF of 10,000 frames", data, (SHOWN,))
    frames = b"".join(
        png.chunk(b"fcTL", struct.pack(">5I2H2B", 2 * n + 1, 1, 1, 0, 0, 1, 10, 0, 0))
        + png.chunk(b"fdAT", struct.pack(">I", 2 * n + 2) + zlib.compress(b"\0\0"))
        for n in range(10_000)
    )
    control = png.chunk(b"fcTL", struct.pack(">5I2H2B", 0, 1, 1, 0, 0, 1, 10, 0, 0))
    count = png.chunk(b"acTL", struct.pack(">II", 10_001, 0))
    whole = png.png(noise(1, 1), before=[count, control], after=[frames])
    yield Hostile("PNG of 10,000 frames", whole, (SHOWN,))
    yield Hostile(
        "PNG that says 4 billion frames", png.plain(png.chunk(b"acTL", b"\xff" * 8)), (SHOWN,)
    )
    small = smooth(2, 2)
    [(name, body)] = webp_chunks(saved(small, "WEBP", lossless=True)).items()
    place = b"".join(v.to_bytes(3, "little") for v in (0, 0, 1, 1, 100)) + b"\0"
    frame = b"ANMF", place + name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    data = webp_file(extended((2, 2), 2), (b"ANIM", bytes(6)), *[frame] * 10_000)
    yield Hostile("WEBP of 10,000 frames", data, (SHOWN,))


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
