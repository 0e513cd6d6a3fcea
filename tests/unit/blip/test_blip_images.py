"""Pixels exactly as BlipImageProcessor's PIL path makes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from worker.blip.config import Preprocessing
from worker.blip.images import normalise, stack

PREPROCESSING = Preprocessing(
    size=(24, 32),
    resample=3,
    scale=1 / 255,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def picture(mode: str, size: tuple[int, int] = (57, 41)) -> Image.Image:
    rng = np.random.default_rng(7)
    colours = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8), "RGBA")
    return (
        colours.convert("RGB").convert(mode)
        if mode in ("P", "CMYK", "1")
        else colours.convert(mode)
    )


@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
def test_given_a_mode_when_prepared_then_the_pixels_are_the_reference_processors(mode: str) -> None:
    image = picture(mode)
    processor = BlipImageProcessorPil(size={"height": 24, "width": 32})
    expected = processor(images=[image], return_tensors="pt").pixel_values
    pixels = stack([image], PREPROCESSING)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, 3, 24, 32))
    assert (normalise(pixels, PREPROCESSING) - expected).abs().max() < 1e-6


def test_given_exif_orientation_when_read_from_a_path_then_it_is_applied(tmp_path: Path) -> None:
    image = picture("RGB", size=(32, 24))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    upright = stack([image.rotate(180)], PREPROCESSING)
    assert stack(tmp_path / "turned.png", PREPROCESSING).equal(upright)


def test_given_grey_and_transparent_arrays_when_prepared_then_they_become_rgb() -> None:
    grey = np.full((24, 32), 9, dtype=np.uint8)
    clear = np.zeros((24, 32, 4), dtype=np.uint8)
    pixels = stack([grey, clear], PREPROCESSING)
    assert pixels[0].unique().tolist() == [9]
    assert pixels[1].unique().tolist() == [255]


def test_given_a_uint8_tensor_of_another_size_when_prepared_then_it_is_squashed() -> None:
    image = picture("RGB")
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    assert stack(tensor, PREPROCESSING).equal(stack([image], PREPROCESSING))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 5, 5), "resized already"),
        (torch.zeros(3, 24, 32), r"\[N, 3, H, W\]"),
        (torch.zeros(1, 3, 24, 32, dtype=torch.int64), "uint8 or float"),
        ([np.zeros((24, 32, 3), dtype=np.float32)], "uint8 array, not float32"),
        ([np.zeros((24, 32, 2), dtype=np.uint8)], r"\[H, W, 4\]"),
        ([17], "not int"),
    ],
)
def test_given_what_is_no_image_when_prepared_then_the_error_says_what_was_expected(
    images: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stack(images, PREPROCESSING)


def test_given_a_file_that_is_no_image_when_prepared_then_pillow_says_so(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(OSError, match="cannot identify"):
        stack([tmp_path / "note.txt"], PREPROCESSING)
