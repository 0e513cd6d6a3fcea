"""Valid JPEGs."""

from collections.abc import Iterator

import numpy as np

from tests.images import jpeg
from tests.images.orientation import exif
from tests.images.sample import Sample, saved, smooth


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
