"""Small files that cost much, unless somebody looks."""

import struct
import zlib
from collections.abc import Iterator

from tests.images import bmp, gif, jpeg, png
from tests.images.damage import COMPLEX, CORRUPT, GREYS, SHOWN, TWO_MIB, Hostile
from tests.images.gif import Frame
from tests.images.jpeg import segment
from tests.images.sample import noise, saved, smooth
from tests.images.webp import extended, webp_chunks, webp_file


def bombs() -> Iterator[Hostile]:
    zeros = zlib.compress(bytes(8 * TWO_MIB), 9)
    for name, begin in (("iCCP", b"x\0\0"), ("zTXt", b"x\0\0"), ("iTXt", b"x\0\1\0\0\0")):
        one = png.chunk(name.encode(), begin + zeros)
        yield Hostile(f"PNG {name} of 16 MiB", png.plain(one), (SHOWN,))
        packed = begin + zlib.compress(bytes(256 * 1_024), 9)
        many = png.chunk(name.encode(), packed) * (TWO_MIB // len(packed))
        yield Hostile(f"PNG {name} without end", png.plain(many), (SHOWN,))
    profiles = png.chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(256 * 1_024), 9)) * 20_000
    data = png.plain(png.chunk(b"a1_b"), profiles)
    yield Hostile("PNG profiles behind a chunk with a digit", data, (CORRUPT,))
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
    segments = segment(0xE1, b"Exif\0\0" + bytes(10)) * 250_000  # half a minute of Pillow's time
    for name, begin in (
        ("a second beginning", b"\xff\xd8"),
        ("an end", b"\xff\xd9"),
        ("a reserved marker", b"\xff\xf0\0\2"),
        ("another reserved marker", b"\xff\xc8\0\2"),
    ):
        data = jpeg.with_segments(plain, begin, segments)
        yield Hostile(f"JPEG with EXIF segments behind {name}", data, (CORRUPT,))
    reserved = b"".join(
        segment(0xF5, segments[n : n + 65_520]) for n in range(0, 5_000_000, 65_520)
    )
    data = jpeg.with_segments(plain, reserved)
    yield Hostile("JPEG with EXIF segments inside reserved ones", data, (CORRUPT,))
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
        for before, junk in (("", b""), (" behind junk", b"\0\1\2")):
            data = gif.gif((9, 9), [Frame(indices)], GREYS[:768], extensions=[junk + extension])
            yield Hostile(f"GIF with {name}{before}", data, (SHOWN,))
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
