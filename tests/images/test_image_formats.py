"""Formats beyond the usual ones: by setting, and HEIF by an extra as well."""

import importlib.util
import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from producer.beginnings import begins_as
from tests.images.orientation import UPRIGHT
from tests.images.sample import on_white, smooth
from worker import formats
from worker.errors import ErrorCode, Fault
from worker.formats import DEFAULT_FORMATS, enable, parse_formats
from worker.house import make_sandbox
from worker.image import ImageLimits, decode
from worker.settings import SettingsError, WorkerSettings, load_settings

heif = pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is None,
    reason='HEIF is not tried: pip install "captionq[heic]"',
)
FORMATS = ["AVIF", pytest.param("HEIF", marks=heif)]


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    enable((name,))
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def limits(name: str) -> ImageLimits:
    return ImageLimits(formats=(*DEFAULT_FORMATS, name))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("JPEG,PNG,WEBP,GIF,BMP", DEFAULT_FORMATS),
        (" jpeg , avif,", ("JPEG", "AVIF")),
        ("PNG,png,JPG", ("PNG", "JPEG")),
    ],
)
def test_given_a_list_of_formats_when_parsed_then_it_holds_pillows_names(
    text: str, names: tuple[str, ...]
) -> None:
    assert parse_formats(text) == names


@pytest.mark.parametrize("name", ["TIFF", "PSD", "EPS", "JPEG2000", "FITS", "ICNS", "PCX", "PPM"])
def test_given_a_format_that_is_dangerous_when_parsed_then_the_error_says_what_is_allowed(
    name: str,
) -> None:
    with pytest.raises(ValueError, match=f"{name} is not accepted; it may hold JPEG, PNG, WEBP"):
        parse_formats(f"JPEG,{name}")


def test_given_heif_is_asked_for_and_missing_when_settings_are_read_then_they_name_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    monkeypatch.setenv("CAPTIONQ_IMAGE_FORMATS", "JPEG,HEIC")
    with pytest.raises(SettingsError, match=r"captionq\[heic\]"):
        load_settings()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_given_a_format_that_was_asked_for_when_decoded_then_it_is_as_pillow_reads_it(
    name: str, mode: str
) -> None:
    data = saved(smooth(64, 48, mode), name)
    decoded = decode(data, limits(name))
    with Image.open(io.BytesIO(data)) as plain:
        wanted = on_white(np.asarray(plain.convert("RGBA")))
    assert np.array_equal(decoded.images[0], wanted)
    assert (decoded.facts.format, decoded.facts.width, decoded.facts.height) == (name, 64, 48)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_given_an_orientation_when_decoded_then_the_picture_stands_upright(
    name: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = smooth(120, 80)
    decoded = decode(saved(image, name, exif=exif.tobytes(), quality=100), limits(name))
    wanted = UPRIGHT[orientation](np.asarray(image)).astype(int)
    assert decoded.images[0].shape == wanted.shape
    assert np.abs(decoded.images[0] - wanted).mean() < 3
    assert (decoded.facts.height, decoded.facts.width) == wanted.shape[:2]


@pytest.mark.parametrize("name", FORMATS)
def test_given_a_format_that_was_not_asked_for_when_decoded_then_it_is_unsupported(
    name: str,
) -> None:
    with pytest.raises(Fault) as failure:
        decode(saved(smooth(), name), ImageLimits())
    assert failure.value.code is ErrorCode.IMAGE_UNSUPPORTED_FORMAT


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_given_it_is_cut_off_when_decoded_then_it_is_corrupt(name: str, share: float) -> None:
    data = saved(smooth(200, 150), name)
    with pytest.raises(Fault) as failure:
        decode(data[: int(len(data) * share)], limits(name))
    assert failure.value.code is ErrorCode.IMAGE_CORRUPT


@pytest.mark.parametrize("name", FORMATS)
def test_given_it_is_too_large_when_decoded_then_it_is_refused(name: str) -> None:
    small = ImageLimits(formats=(name,), max_pixels=1_000)
    with pytest.raises(Fault) as failure:
        decode(saved(smooth(64, 48), name), small)
    assert failure.value.code is ErrorCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize("name", FORMATS)
def test_given_settings_with_more_formats_when_a_sandbox_decodes_then_it_reads_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_IMAGE_FORMATS", f"JPEG,{name}")
    monkeypatch.setenv("CAPTIONQ_DECODERS", "1")
    monkeypatch.setenv("CAPTIONQ_ALPHA", "drop")
    sandbox = make_sandbox(load_settings())
    try:
        facts = sandbox.decode(saved(smooth(64, 48), name)).facts
        assert facts.format == name
        with pytest.raises(Fault) as failure:
            sandbox.decode(saved(smooth(), "PNG"))
        assert failure.value.code is ErrorCode.IMAGE_UNSUPPORTED_FORMAT
    finally:
        sandbox.close()


def test_given_settings_of_images_when_a_sandbox_is_made_then_they_are_its_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[ImageLimits] = []
    monkeypatch.setattr("worker.house.Sandbox", lambda limits, **_: given.append(limits))
    settings = WorkerSettings(
        image_formats="PNG", max_pixels=1, max_side=2, max_jpeg_scans=3, alpha="drop"
    )
    make_sandbox(settings)
    [found] = given
    chosen = (found.formats, found.max_pixels, found.max_side, found.max_jpeg_scans, found.alpha)
    assert chosen == (("PNG",), 1, 2, 3, "drop")


def test_given_isos_media_files_when_their_beginning_is_looked_at_then_brands_are_told_apart() -> (
    None
):
    for brand, avif, is_heif in ((b"avif", True, False), (b"heic", False, True),
                                 (b"mif1", True, True), (b"isom", False, False)):  # fmt: skip
        data = b"\0\0\0\x18ftyp" + brand
        assert (begins_as(data, ("AVIF",)), begins_as(data, ("HEIF",))) == (avif, is_heif)
