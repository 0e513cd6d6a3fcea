"""Files whose headers lie."""

import struct
import zlib
from collections.abc import Iterator

from tests.images import bmp, gif, jpeg, png
from tests.images.damage import CORRUPT, GREYS, LARGE, SHOWN, Hostile
from tests.images.gif import Frame
from tests.images.sample import noise, saved, smooth
from tests.images.webp import extended, webp_chunks, webp_file


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
