"""Any mode as RGB, in strips as if at once."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images.sample import noise, on_white, smooth
from worker import colour
from worker.colour import to_rgb

RED, WHITE, GREY = (255, 0, 0), (255, 255, 255), (128, 128, 128)


def first(image: Image.Image, alpha: colour.Alpha = "white") -> Any:
    return to_rgb(image, alpha).getpixel((0, 0))


def sixteen(level: int, mode: str) -> Image.Image:
    if mode == "I":
        return Image.new("I", (2, 2), level)
    order = ">u2" if mode == "I;16B" else "<u2"
    return Image.frombytes(mode, (2, 2), np.full(4, level, order).tobytes())


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
@pytest.mark.parametrize(
    ("level", "wanted"), [(0, 0), (128, 0), (129, 1), (257, 1), (32_768, 128), (65_535, 255)]
)
def test_given_sixteen_bits_of_grey_when_made_rgb_then_they_are_scaled(
    mode: str, level: int, wanted: int
) -> None:
    assert first(sixteen(level, mode)) == (wanted,) * 3


@pytest.mark.parametrize(("level", "wanted"), [(-5, 0), (70_000, 255)])
def test_given_more_than_sixteen_bits_when_made_rgb_then_they_end_at_black_and_white(
    level: int, wanted: int
) -> None:
    assert first(sixteen(level, "I")) == (wanted,) * 3


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
@pytest.mark.parametrize(("level", "wanted"), [(32_768, WHITE), (32_769, GREY)])
def test_given_a_transparent_level_of_sixteen_bits_when_made_rgb_then_it_alone_is_white(
    mode: str, level: int, wanted: tuple[int, ...]
) -> None:
    image = sixteen(level, mode)
    image.info["transparency"] = 32_768
    assert first(image) == wanted
    assert first(image, "drop") == GREY


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (Image.new("1", (2, 2), 1), WHITE),
        (Image.new("L", (2, 2), 128), GREY),
        (Image.new("RGBX", (2, 2), (*RED, 0)), RED),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), RED),
        (Image.new("YCbCr", (2, 2), (128, 128, 128)), GREY),
        (Image.new("HSV", (2, 2), (0, 255, 255)), RED),
        (Image.new("F", (2, 2), 128.0), GREY),
        (Image.new("LA", (2, 2), (128, 255)), GREY),
        (Image.new("LA", (2, 2), (0, 0)), WHITE),
        (Image.new("LA", (2, 2), (0, 127)), GREY),
        (Image.new("LA", (2, 2), (0, 127)).convert("La"), GREY),
        (Image.new("RGBA", (2, 2), (*RED, 0)), WHITE),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 127)), GREY),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 127)).convert("RGBa"), GREY),
        (Image.merge("PA", [Image.new("P", (2, 2)), Image.new("L", (2, 2), 127)]), GREY),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_given_a_mode_when_made_rgb_then_the_colour_is_the_same_and_transparency_white(
    image: Image.Image, wanted: tuple[int, ...]
) -> None:
    assert first(image) == wanted


def test_given_lab_when_made_rgb_then_it_is_as_pillows_colour_management_has_it() -> None:
    image = Image.new("LAB", (2, 2), (100, 140, 150))
    assert first(image) == image.convert("RGB").getpixel((0, 0)) != (0, 0, 0)


def test_given_rgb_when_made_rgb_then_nothing_is_copied() -> None:
    image = smooth()
    assert to_rgb(image, "white") is image


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "RGBa", "CMYK", "I;16"])
def test_given_more_than_a_strip_when_made_rgb_then_it_is_as_if_made_at_once(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(noise(60, 50, 4).astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(noise(60, 50, 1, 16)[..., 0].astype(np.uint16))
    elif mode != "PA":
        image = image.convert(mode)
    else:
        image = Image.merge("PA", [image.convert("P"), image.getchannel("A")])
    whole = np.asarray(to_rgb(image, "white"))
    monkeypatch.setattr(colour, "_STRIP_PIXELS", 7 * 50 + 3)
    strips = np.asarray(to_rgb(image, "white"))
    assert np.array_equal(whole, strips)
    if mode in ("LA", "RGBA", "RGBa", "PA"):
        assert np.array_equal(whole, on_white(np.asarray(image.convert("RGBA"))))


def test_given_a_line_longer_than_a_strip_when_made_rgb_then_lines_are_the_strips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(colour, "_STRIP_PIXELS", 10)
    image = smooth(mode="L")
    assert np.array_equal(np.asarray(to_rgb(image, "white")), np.asarray(image.convert("RGB")))
