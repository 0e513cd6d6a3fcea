"""Pictures that EXIF or XMP turns, and EXIF data that turns nothing."""

import struct
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from tests.images import jpeg, png
from tests.images.sample import HEIGHT, WIDTH, Sample, saved, smooth
from tests.images.webp import extended, webp_chunks, webp_file


def exif(orientation: int, order: str = ">", kind: int = 3) -> bytes:
    """EXIF data of the one field; `kind` a TIFF type: 1 BYTE, 3 SHORT, 4 LONG."""
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    begin = b"MM\0*" if order == ">" else b"II*\0"
    return begin + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)


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
