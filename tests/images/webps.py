"""Valid WebP files."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.images.orientation import exif
from tests.images.sample import HEIGHT, WIDTH, Sample, on_white, saved, smooth
from tests.images.webp import extended, webp_chunks, webp_file


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
