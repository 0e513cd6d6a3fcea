"""What `decode` makes of good, odd and hostile image files."""

import hashlib
import io
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from producer.errors import JobFailed
from worker.blip.framing import Framing
from worker.blip.geometry import MODES, Box, Mode
from worker.errors import ErrorCode, Fault
from worker.image import ImageLimits, count_scans, decode

LIMITS = ImageLimits()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 1) -> Image.Image:
    """Smooth colour, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def to(
    height: int,
    width: int,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
    mode: Mode = "stretch",
) -> Framing:
    """A framing to a size, in patches of 2 pixels."""
    return Framing(mode, (height, width), 2, resample, (1, 2, 3))


def code(data: bytes, limits: ImageLimits = LIMITS, **options: Any) -> ErrorCode | None:
    try:
        decode(data, limits, **options)
    except Fault as fault:
        return fault.code
    return None


def pixel(
    data: bytes, limits: ImageLimits = LIMITS, at: tuple[int, int] = (0, 0)
) -> tuple[int, ...]:
    return tuple(int(v) for v in decode(data, limits).images[0][at])


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *extra: bytes, idat: bytes = b"") -> bytes:
    """A PNG whose header may promise anything; 8-bit grey."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", idat), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body


def more_scans(jpeg: bytes, extra: int) -> bytes:
    """The JPEG with its last scan repeated before its end."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * extra + jpeg[-2:]


# Formats and modes


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_given_each_accepted_format_when_decoded_then_pixels_and_facts_are_those_of_the_file(
    format: str,  # noqa: A002
) -> None:
    data = encode(picture(40, 30), format)
    decoded = decode(data, LIMITS)
    assert decoded.images[0].shape == (30, 40, 3)
    assert decoded.images[0].dtype == np.uint8
    assert decoded.images[0].flags.c_contiguous
    assert np.abs(decoded.images[0].astype(int) - np.asarray(picture(40, 30))).mean() < 12
    facts = decoded.facts
    assert (facts.format, facts.width, facts.height) == (format, 40, 30)
    assert (facts.bytes, facts.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", ErrorCode.IMAGE_EMPTY),
        (b"\0", ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (b"<html>not found</html>", ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (encode(picture(), "TIFF"), ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (encode(picture(), "PPM"), ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (encode(picture(), "ICO"), ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (encode(picture(), "JPEG2000"), ErrorCode.IMAGE_UNSUPPORTED_FORMAT),
        (b"\xff\xd8\xff", ErrorCode.IMAGE_CORRUPT),
        (b"\x89PNG\r\n\x1a\n", ErrorCode.IMAGE_CORRUPT),
        (b"GIF89a", ErrorCode.IMAGE_CORRUPT),
        (b"BM", ErrorCode.IMAGE_CORRUPT),
        (b"RIFF\0\0\0\0WEBP", ErrorCode.IMAGE_CORRUPT),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else value,
)
def test_given_what_is_no_accepted_image_when_decoded_then_the_code_says_why(
    data: bytes, wanted: ErrorCode
) -> None:
    assert code(data) is wanted


def test_given_an_opted_in_format_when_decoded_then_it_is_accepted() -> None:
    data = encode(picture(), "AVIF")
    assert code(data) is ErrorCode.IMAGE_UNSUPPORTED_FORMAT
    assert code(data, ImageLimits(formats=("AVIF",))) is None


def test_given_an_mpo_when_decoded_then_its_first_picture_is_taken() -> None:
    first, second = picture(seed=1), picture(seed=2)
    data = encode(first, "MPO", save_all=True, append_images=[second])
    decoded = decode(data, LIMITS)
    assert decoded.facts.format == "MPO"
    assert np.abs(decoded.images[0].astype(int) - np.asarray(first)).mean() < 12


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_given_an_animation_when_decoded_then_its_first_frame_is_taken(
    format: str,  # noqa: A002
) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert np.allclose(pixel(data), RED, atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"])
def test_given_any_mode_when_decoded_then_it_is_rgb(mode: str) -> None:
    image = picture(mode=mode)
    data = encode(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decode(data, LIMITS).images[0] - expected).mean() < 6


@pytest.mark.parametrize(("level", "wanted"), [(0, 0), (257, 1), (32_768, 128), (65_535, 255)])
def test_given_sixteen_bits_of_grey_when_decoded_then_they_are_scaled_not_clipped(
    level: int, wanted: int
) -> None:
    data = encode(Image.fromarray(np.full((4, 4), level, dtype=np.uint16)))
    assert pixel(data) == (wanted,) * 3


# Transparency


def palette_with_transparency() -> bytes:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([*RED, *GREEN])
    return encode(image, transparency=0)


TRANSPARENT = {
    "RGBA": encode(Image.new("RGBA", (2, 2), (*RED, 0))),
    "LA": encode(Image.new("LA", (2, 2), (9, 0))),
    "P": palette_with_transparency(),
    "RGB with a transparent colour": encode(Image.new("RGB", (2, 2), RED), transparency=RED),
    "L with a transparent level": encode(Image.new("L", (2, 2), 9), transparency=9),
    "WEBP": encode(Image.new("RGBA", (2, 2), (*RED, 0)), "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("data", TRANSPARENT.values(), ids=TRANSPARENT.keys())
def test_given_a_transparent_pixel_when_decoded_then_it_is_white(data: bytes) -> None:
    assert pixel(data) == WHITE


@pytest.mark.parametrize("name", ["RGBA", "P", "RGB with a transparent colour", "WEBP"])
def test_given_alpha_is_to_be_dropped_when_decoded_then_the_hidden_colour_shows(name: str) -> None:
    assert pixel(TRANSPARENT[name], ImageLimits(alpha="drop")) == RED


def test_given_half_a_transparency_when_decoded_then_it_is_mixed_with_white() -> None:
    assert pixel(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 51)))) == (204, 204, 204)


# Orientation


def turned(orientation: object) -> bytes:
    """6 x 4, its left upper corner red, with an EXIF orientation."""
    image = Image.new("RGB", (6, 4), WHITE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(image, exif=exif)


@pytest.mark.parametrize(
    ("orientation", "shape", "corner"),
    [
        (0, (4, 6), (0, 0)),
        (1, (4, 6), (0, 0)),
        (2, (4, 6), (0, -1)),
        (3, (4, 6), (-1, -1)),
        (4, (4, 6), (-1, 0)),
        (5, (6, 4), (0, 0)),
        (6, (6, 4), (0, -1)),
        (7, (6, 4), (-1, -1)),
        (8, (6, 4), (-1, 0)),
        (9, (4, 6), (0, 0)),
    ],
)
def test_given_an_exif_orientation_when_decoded_then_the_picture_stands_upright(
    orientation: int, shape: tuple[int, int], corner: tuple[int, int]
) -> None:
    decoded = decode(turned(orientation), LIMITS)
    assert decoded.images[0].shape == (*shape, 3)
    assert tuple(decoded.images[0][corner]) == RED
    assert (decoded.facts.height, decoded.facts.width) == shape


@pytest.mark.filterwarnings("ignore::UserWarning")  # as worker.image sets it; pytest undoes that
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk" * 50])
def test_given_damaged_exif_when_decoded_then_the_picture_is_taken_as_it_lies(exif: bytes) -> None:
    data = encode(picture(), "JPEG")
    assert code(data[:2] + segment(0xE1, exif) + data[2:]) is None


# Limits


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (png(16_383, 3_000), ErrorCode.IMAGE_CORRUPT),  # within the limits, and empty
        (png(16_384, 1), ErrorCode.IMAGE_TOO_LARGE),
        (png(1, 16_384), ErrorCode.IMAGE_TOO_LARGE),
        (png(7_072, 7_072), ErrorCode.IMAGE_TOO_LARGE),
        (png(16_383, 16_383), ErrorCode.IMAGE_TOO_LARGE),
        (png(2**31 - 1, 2**31 - 1), ErrorCode.IMAGE_TOO_LARGE),
        (png(0, 5), ErrorCode.IMAGE_CORRUPT),
    ],
)
def test_given_a_header_that_promises_much_when_decoded_then_it_is_refused_before_decoding(
    data: bytes, wanted: ErrorCode
) -> None:
    assert code(data) is wanted


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        (ImageLimits(max_pixels=1_200, max_side=40), None),
        (ImageLimits(max_pixels=1_199), ErrorCode.IMAGE_TOO_LARGE),
        (ImageLimits(max_pixels=500), ErrorCode.IMAGE_TOO_LARGE),
        (ImageLimits(max_side=39), ErrorCode.IMAGE_TOO_LARGE),
    ],
)
def test_given_a_limit_when_an_image_of_40_by_30_passes_it_then_it_is_too_large(
    format: str,  # noqa: A002
    limits: ImageLimits,
    wanted: ErrorCode | None,
) -> None:
    assert code(encode(picture(40, 30), format), limits) is wanted


def test_given_a_gif_whose_frame_is_larger_than_its_screen_when_decoded_then_the_frame_counts() -> (
    None
):
    data = bytearray(encode(Image.new("L", (300, 300)), "GIF"))
    data[6:10] = struct.pack("<HH", 1, 1)
    assert code(bytes(data), ImageLimits(max_pixels=1_000)) is ErrorCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**23))),
        chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**23))),
        chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(2**23))),
    ],
    ids=["iCCP", "zTXt", "iTXt"],
)
def test_given_metadata_that_inflates_without_end_when_decoded_then_nothing_inflates_it(
    bomb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    inflated: list[int] = []
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", inflated.append)
    assert code(png(1, 1, bomb, idat=zlib.compress(b"\0\0"))) is None
    assert not inflated


def test_given_memory_runs_out_when_decoding_then_the_image_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError

    data = encode(picture())
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", run_out)
    assert code(data) is ErrorCode.IMAGE_TOO_LARGE


# JPEG scans


@pytest.mark.parametrize(
    ("progressive", "extra", "wanted"),
    [
        (True, 0, None),
        (True, 30, None),
        (True, 55, ErrorCode.IMAGE_TOO_COMPLEX),
        (False, 0, None),
        (False, 64, ErrorCode.IMAGE_TOO_COMPLEX),
    ],
)
def test_given_a_jpeg_of_many_scans_when_decoded_then_it_is_too_complex(
    progressive: bool, extra: int, wanted: ErrorCode | None
) -> None:
    data = more_scans(encode(picture(), "JPEG", progressive=progressive), extra)
    assert code(data) is wanted


def test_given_a_jpeg_when_its_scans_are_counted_then_only_its_own_picture_counts() -> None:
    plain = encode(picture(), "JPEG")
    progressive = encode(picture(), "JPEG", progressive=True)
    thumbnail = segment(0xE1, b"Exif\0\0" + progressive) + segment(0xE2, b"\xff\xda" * 100)
    cases: list[tuple[bytes, int]] = [
        (plain, 1),
        (progressive, 10),
        (plain[:2] + thumbnail + plain[2:], 1),
        (plain + progressive, 1),
        (plain[:2] + b"\xff\xff\xff" + plain[3:], 1),  # fill bytes before a marker
        (plain[:2] + segment(0xDA, b"no frame yet") + plain[2:], 1),
        (plain[:100], 0),
        (b"", 0),
        (b"\xff\xc0\x00\x00\xff\xda", 1),  # libjpeg goes on after a length too small for itself
        (segment(0xC0, b"") + segment(0xDA, b"") + b"\xff" * 5_000_000 + b"\0", 1),  # in no time
    ]
    assert [count_scans(data, 64) for data, _ in cases] == [count for _, count in cases]
    assert count_scans(more_scans(plain, 400), 64) == 65


# Damage


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_given_a_file_cut_off_when_decoded_then_it_is_corrupt(
    format: str,  # noqa: A002
    share: float,
) -> None:
    data = encode(picture(200, 150), format)
    assert code(data[: int(len(data) * share)]) is ErrorCode.IMAGE_CORRUPT


FORMATS = {name: encode(picture(), name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP")}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
)
def test_given_any_bytes_changed_when_decoded_then_there_is_an_image_or_a_fault(
    name: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(FORMATS[name])
    for place, value in changes:
        data[int(place * len(data))] = value
    # Small limits, so that a changed size does not cost the test its time.
    outcome = code(bytes(data), ImageLimits(max_pixels=100_000), framing=to(8, 8))
    assert outcome is None or outcome.value.startswith("image_")


# The target size


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_given_a_size_when_decoded_then_the_pixels_are_exactly_pillows_squash(
    resample: Image.Resampling,
) -> None:
    image = picture(301, 199)
    decoded = decode(encode(image), LIMITS, to(38, 48, resample))
    assert np.array_equal(decoded.images[0], np.asarray(image.resize((48, 38), resample)))
    assert (decoded.facts.width, decoded.facts.height) == (301, 199)


def test_given_a_size_and_an_orientation_when_decoded_then_it_is_turned_before_it_is_squashed() -> (
    None
):
    decoded = decode(turned(6), LIMITS, to(12, 8))
    assert decoded.images[0].shape == (12, 8, 3)
    assert decoded.images[0][0, -1, 1] < 100 < decoded.images[0][0, 0, 1]
    assert (decoded.facts.width, decoded.facts.height) == (4, 6)


def test_given_a_large_jpeg_when_decoded_to_a_size_then_a_draft_changes_it_hardly() -> None:
    image = picture(3_000, 2_900)
    data = encode(image, "JPEG", quality=95, subsampling="4:4:4")
    drafted = decode(data, LIMITS, to(384, 384))
    full = decode(data, ImageLimits(draft="off"), to(384, 384))
    difference = np.abs(drafted.images[0].astype(int) - full.images[0])
    assert 0 < difference.max() <= 4
    assert difference.mean() <= 0.2
    assert (drafted.facts.width, drafted.facts.height) == (3_000, 2_900)
    assert decode(data, LIMITS).images[0].shape == (2_900, 3_000, 3)


@pytest.mark.parametrize("mode", MODES)
def test_given_a_wide_image_and_a_mode_when_decoded_then_it_is_framed_as_the_engine_does(
    mode: Mode,
) -> None:
    image = picture(301, 80)
    framing = to(32, 32, mode=mode)
    [pixels] = decode(encode(image), LIMITS, framing).images
    assert np.array_equal(pixels, framing.frame(image))
    assert pixels.flags.c_contiguous
    assert pixels.shape == ((16, 64, 3) if mode == "native" else (32, 32, 3))
    assert (tuple(pixels[0, 0]) == (1, 2, 3)) is (mode == "pad")


def test_given_a_larger_resolution_when_a_large_jpeg_is_decoded_then_its_draft_is_larger() -> None:
    image = picture(3_400, 3_200)
    data = encode(image, "JPEG", quality=95, subsampling="4:4:4")
    for side in (384, 768):
        [drafted] = decode(data, LIMITS, to(side, side)).images
        [full] = decode(data, ImageLimits(draft="off"), to(side, side)).images
        assert np.abs(drafted.astype(int) - full).mean() < 1
        assert np.array_equal(drafted, full) is (side == 768)


# Regions


def test_given_regions_when_decoded_then_each_is_cut_from_the_original_and_framed() -> None:
    image = picture(2_400, 1_600)
    boxes = [(0, 0, 2_400, 1_600), (100, 200, 400, 300), (2_399, 1_599, 2_400, 1_600)]
    decoded = decode(encode(image, "BMP"), LIMITS, to(32, 32), boxes)
    assert len(decoded.images) == 3
    for pixels, box in zip(decoded.images, boxes, strict=True):
        assert np.array_equal(pixels, to(32, 32).frame(image.crop(box)))
    assert (decoded.facts.width, decoded.facts.height) == (2_400, 1_600)


def test_given_regions_of_a_large_jpeg_when_decoded_then_they_have_full_detail() -> None:
    data = encode(picture(2_400, 1_600), "JPEG", quality=95)
    [whole] = decode(data, LIMITS).images
    [region] = decode(data, LIMITS, to(32, 32), [(500, 500, 532, 532)]).images
    assert np.array_equal(region, whole[500:532, 500:532])


def test_given_a_turned_image_when_decoded_then_regions_are_of_the_upright_one() -> None:
    [whole] = decode(turned(6), LIMITS).images
    assert whole.shape == (6, 4, 3)
    [region] = decode(turned(6), LIMITS, None, [(0, 4, 4, 6)]).images
    assert np.array_equal(region, whole[4:6])


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ((0, 0, 5, 6), "region 0,0,5,6 leaves the image of 4x6 pixels"),
        ((0, 5, 4, 7), "region 0,5,4,7 leaves the image of 4x6 pixels"),
        ((2, 2, 2, 4), "region 2,2,2,4 is empty"),
    ],
)
def test_given_a_region_outside_the_upright_image_when_decoded_then_the_job_is_invalid(
    box: Box, sentence: str
) -> None:
    with pytest.raises(JobFailed, match=sentence) as failure:
        decode(turned(6), LIMITS, to(8, 8), [(0, 0, 4, 6), box])
    assert failure.value.code is ErrorCode.JOB_INVALID


def test_given_a_process_that_decodes_and_frames_then_it_has_no_torch() -> None:
    program = (
        "import sys, pickle; call = pickle.loads(sys.stdin.buffer.read());"
        "print(call().images[0].shape, 'torch' in sys.modules)"
    )
    call = partial(decode, encode(picture()), LIMITS, to(8, 8), [(0, 0, 9, 9)])
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(call), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "(8, 8, 3) False"


def test_given_decode_and_its_values_when_pickled_then_they_come_back() -> None:
    call: Callable[[bytes], Any] = pickle.loads(
        pickle.dumps(partial(decode, limits=LIMITS, framing=to(4, 4)))
    )
    decoded = pickle.loads(pickle.dumps(call(encode(picture()))))
    assert decoded.images[0].shape == (4, 4, 3)
    fault = pickle.loads(pickle.dumps(Fault(ErrorCode.IMAGE_CORRUPT, "why", 1.5)))
    assert (fault.code, fault.detail, fault.retry_after_s) == (ErrorCode.IMAGE_CORRUPT, "why", 1.5)
