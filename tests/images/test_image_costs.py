"""The largest files that the limits let through need no more than a decoder has."""

import re

import pytest
from PIL import Image

from tests.images.costs import figures

SPACE_MIB = 1_100  # of the 1,536 of a decoder, which has more to hold than this


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("png-rgba-16", "PNG 3051x16383"),
        ("png-grey-16-transparent", "PNG 3051x16383"),
        ("png-palette-alpha", "PNG 3051x16383"),
        ("webp-animated", "WEBP 3000x16383"),
        ("bmp-rle8-empty-lines", "BMP 16383x3051"),
    ],
)
def test_given_50_megapixels_when_decoded_in_little_address_space_then_there_is_enough(
    name: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    line = figures(name, SPACE_MIB)
    print(line)
    assert line.endswith(shown)
    found = re.search(r"([\d.]+) s", line)
    assert found is not None
    assert float(found[1]) < 8


def test_given_too_little_address_space_when_decoded_then_the_image_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert "image_too_large" in figures("png-rgba", 350)
