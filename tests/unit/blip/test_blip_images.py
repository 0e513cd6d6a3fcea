"""Pixels exactly as BlipImageProcessor's PIL path makes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from worker.blip import crop
from worker.blip.config import Preprocessing
from worker.blip.framing import cut
from worker.blip.geometry import MODES, Box, Mode
from worker.blip.images import frame, framing, normalise

PREPROCESSING = Preprocessing(
    size=(24, 32),
    resample=3,
    scale=1 / 255,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def stack(images: Any, mode: Mode = "stretch", resolution: int | None = None) -> torch.Tensor:
    """The one group of images of one size, with patches of 8."""
    [group] = frame(images, framing(PREPROCESSING, 8, mode, resolution), PREPROCESSING.size)
    assert group.rows == list(range(len(group.pixels)))
    return group.pixels


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
    pixels = stack([image])
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, 3, 24, 32))
    assert (normalise(pixels, PREPROCESSING) - expected).abs().max() < 1e-6


def test_given_exif_orientation_when_read_from_a_path_then_it_is_applied(tmp_path: Path) -> None:
    image = picture("RGB", size=(32, 24))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    upright = stack([image.rotate(180)])
    assert stack(tmp_path / "turned.png").equal(upright)


def test_given_grey_and_transparent_arrays_when_prepared_then_they_become_rgb() -> None:
    grey = np.full((24, 32), 9, dtype=np.uint8)
    clear = np.zeros((24, 32, 4), dtype=np.uint8)
    pixels = stack([grey, clear])
    assert pixels[0].unique().tolist() == [9]
    assert pixels[1].unique().tolist() == [255]


def test_given_a_uint8_tensor_of_another_size_when_prepared_then_it_is_squashed() -> None:
    image = picture("RGB")
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    assert stack(tensor).equal(stack([image]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 5, 5), "resized already"),
        (torch.zeros(1, 3, 24, 33), "would lose its edge"),
        (torch.zeros(1, 3, 0, 32), "would lose its edge"),
        (torch.zeros(1, 3, 56, 64), "more than 4 times the patches of 24x32"),
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
        stack(images)


def test_given_a_file_that_is_no_image_when_prepared_then_pillow_says_so(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(OSError, match="cannot identify"):
        stack([tmp_path / "note.txt"])


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (48, 64)])
def test_given_a_float_tensor_that_patches_tile_when_prepared_then_nothing_of_it_is_lost(
    size: tuple[int, int],
) -> None:
    values = torch.randn(2, 3, *size)
    assert stack(values).equal(values)


def test_given_a_wide_picture_when_padded_then_what_is_added_normalises_to_zero() -> None:
    pixels = stack([picture("RGB", size=(80, 20))], "pad")
    assert pixels.shape == (1, 3, 24, 32)
    around = normalise(pixels, PREPROCESSING)[..., [0, 7, 16, 23], :]
    assert around.abs().max() < 0.5 / 255 / min(PREPROCESSING.std)
    expected = picture("RGB", size=(80, 20)).resize((32, 8), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels[0, :, 8:16].permute(1, 2, 0), np.asarray(expected))


def test_given_a_tall_picture_when_cropped_then_its_middle_alone_is_seen() -> None:
    image = picture("RGB", size=(32, 100))
    middle = image.crop((0, 38, 32, 62))
    assert stack([image], "crop").equal(stack([middle]))


def test_given_mixed_pictures_when_native_then_those_of_one_grid_are_together() -> None:
    wide, square, tall = (picture("RGB", size=s) for s in [(90, 30), (32, 24), (20, 70)])
    groups = frame([wide, square, tall, wide], framing(PREPROCESSING, 8, "native", None), (24, 32))
    assert [group.rows for group in groups] == [[0, 3], [1], [2]]
    assert [tuple(group.pixels.shape[2:]) for group in groups] == [(16, 48), (24, 32), (48, 16)]
    assert groups[1].pixels.equal(stack([square]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(90, 30), (32, 24), (20, 70), (1, 500), (57, 41)])
def test_given_framed_pixels_when_sent_through_native_then_they_stay_as_they_are(
    mode: Mode, size: tuple[int, int]
) -> None:
    framed = stack([picture("RGB", size=size)], mode)
    again = stack([framed[0].permute(1, 2, 0).numpy()], "native")
    assert again.equal(framed)
    assert stack(framed, "native").data_ptr() == framed.data_ptr()


def test_given_a_resolution_when_prepared_then_the_square_has_that_side() -> None:
    assert stack([picture("RGB")], "stretch", 48).shape == (1, 3, 48, 48)


def test_given_regions_when_cropped_then_each_is_an_image_of_its_own() -> None:
    image = picture("RGB")
    first, second = crop(image, [(0, 0, 57, 41), (10, 5, 11, 40)])
    assert first.tobytes() == image.tobytes()
    assert second.size == (1, 35)
    assert second.getpixel((0, 0)) == image.getpixel((10, 5))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((3, 0, 3, 9), "region 3,0,3,9 is empty"),
        ((0, 9, 5, 8), "is empty"),
        ((-1, 0, 5, 5), "leaves the image of 57x41 pixels"),
        ((0, 0, 58, 5), "leaves the image"),
        ((0, 40, 5, 42), "leaves the image"),
    ],
)
def test_given_a_region_that_is_none_when_cropped_then_the_error_says_why(
    region: Box, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        crop(picture("RGB"), [(0, 0, 1, 1), region])


def test_given_regions_when_cut_then_all_are_checked_before_the_first_is_made() -> None:
    image = picture("RGB")
    with pytest.raises(ValueError, match="leaves the image"):
        cut(image, [(0, 0, 1, 1), (0, 0, 58, 1)])
    parts = cut(image, [(0, 0, 1, 1)] * 3)
    assert [part.size for part in parts] == [(1, 1)] * 3
    assert next(parts, None) is None
