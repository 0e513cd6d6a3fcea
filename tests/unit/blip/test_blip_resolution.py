"""Other grids than the checkpoint's own: transformers' numbers, and rows that share a batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.blip_checkpoints import Captioner, noise_images
from worker.blip import CaptionOptions, EncodedImages, Engine, InputError
from worker.blip.geometry import MODES, Mode
from worker.blip.vision import _GRIDS_KEPT

TOLERANCE = 1e-4
SHAPES = [(200, 160), (400, 100), (96, 96), (60, 300), (150, 100)]


def mixed_images() -> list[Image.Image]:
    """Images of five aspect ratios: 15 and 16 patches in the tiny checkpoint's native grids."""
    return [noise_images(1, seed, size)[0] for seed, size in enumerate(SHAPES)]


@pytest.mark.parametrize(
    ("size", "mode", "resolution", "grid"),
    [
        ((200, 160), "stretch", 256, (16, 16)),
        ((400, 100), "native", None, (6, 24)),
        ((100, 130), "native", 240, (17, 13)),
    ],
)
def test_given_another_grid_when_captioned_then_numbers_and_token_ids_are_transformers(
    shallow: Path, size: tuple[int, int], mode: Mode, resolution: int | None, grid: tuple[int, int]
) -> None:
    engine = Engine.load(shallow, tasks=["caption"])
    images = noise_images(6, seed=5, size=size)
    pixels = engine.normalised(images, mode, resolution)
    assert pixels.shape == (6, 3, 16 * grid[0], 16 * grid[1])
    reference = Captioner(shallow, images, pixels)
    encoded = engine.encode(images, mode, resolution)
    assert (encoded.embeddings - reference.embeddings).abs().max() < TOLERANCE
    assert engine.encode(pixels).embeddings.equal(encoded.embeddings)

    names = {"num_beams": 3, "max_new_tokens": 8, "min_new_tokens": 5}
    expected, _ = reference.generate(**names)
    assert len({tuple(row) for row in expected}) >= 5
    found = engine.caption(images, mode=mode, resolution=resolution, **names)
    assert [row[0].token_ids for row in found] == expected


@pytest.mark.parametrize("size", [(32, 48), (16, 24), (8, 8), (64, 64)])
def test_given_float_pixels_of_another_size_then_every_position_is_interpolated(
    tiny: Path, tiny_engine: Engine, size: tuple[int, int]
) -> None:
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    reference = Captioner(tiny, [], pixels).embeddings
    assert reference.shape[1] == 1 + size[0] * size[1] // 64
    assert (tiny_engine.encode(pixels).embeddings - reference).abs().max() < TOLERANCE


def test_given_uint8_pixels_of_another_size_then_they_are_images_to_be_framed(
    tiny_engine: Engine,
) -> None:
    image = noise_images(1, size=(96, 48))[0]
    tensor = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    tensor = tensor.view(1, 48, 96, 3).permute(0, 3, 1, 2)
    for mode in MODES:
        alike = tiny_engine.encode(image, mode).embeddings
        assert tiny_engine.encode(tensor, mode).embeddings.equal(alike)


@pytest.fixture(scope="module")
def encoded(tiny_engine: Engine) -> EncodedImages:
    """The mixed images in native mode, in one batch."""
    return tiny_engine.encode(mixed_images(), "native")


class TestMixedGrids:
    """Given images of five aspect ratios in native mode: 15 patches for some, 16 for others."""

    def test_when_encoded_then_each_row_is_what_it_is_alone(
        self, tiny_engine: Engine, encoded: EncodedImages
    ) -> None:
        assert encoded.valid is not None
        assert encoded.valid.sum(dim=1).tolist() == [17, 17, 17, 17, 16]
        for row, image in enumerate(mixed_images()):
            alone = tiny_engine.encode(image, "native")
            assert alone.valid is None
            own = encoded.embeddings[row, encoded.valid[row]]
            assert (own - alone.embeddings[0]).abs().max() < 1e-5

    @pytest.mark.parametrize("beams", [1, 3])
    def test_when_captioned_then_each_is_what_it_is_alone(
        self, tiny_engine: Engine, encoded: EncodedImages, beams: int
    ) -> None:
        together = tiny_engine.caption(encoded, num_beams=beams)
        for [caption], image in zip(together, mixed_images(), strict=True):
            [[alone]] = tiny_engine.caption(image, mode="native", num_beams=beams)
            assert caption.token_ids == alone.token_ids
            assert caption.logprob == pytest.approx(alone.logprob, abs=TOLERANCE)

    def test_when_options_differ_too_then_each_is_what_it_is_alone(
        self, tiny_engine: Engine, encoded: EncodedImages
    ) -> None:
        rows = [CaptionOptions(num_beams=beams, max_new_tokens=8) for beams in (1, 2, 3, 2, 1)]
        together = tiny_engine.caption(encoded, rows)
        for [caption], image, options in zip(together, mixed_images(), rows, strict=True):
            [[alone]] = tiny_engine.caption(image, options, mode="native")
            assert caption.token_ids == alone.token_ids

    def test_when_matched_and_embedded_then_each_is_what_it_is_alone(
        self, tiny_engine: Engine, encoded: EncodedImages
    ) -> None:
        texts = ["a b", "word7 word8 word9"]
        together = tiny_engine.match(encoded, texts)
        vectors = tiny_engine.embed(encoded)
        for row, vector, image in zip(together, vectors, mixed_images(), strict=True):
            [alone] = tiny_engine.match(image, texts, mode="native")
            for one, other in zip(row, alone, strict=True):
                assert one.itm_logits == pytest.approx(other.itm_logits, abs=TOLERANCE)
                assert one.itc_cosine == pytest.approx(other.itc_cosine, abs=TOLERANCE)
            [expected] = tiny_engine.embed(image, mode="native")
            assert (vector - expected).abs().max() < TOLERANCE

    def test_when_what_fills_a_row_is_replaced_then_nothing_is_said_otherwise(
        self, tiny_engine: Engine, encoded: EncodedImages
    ) -> None:
        assert encoded.valid is not None
        filled = encoded.embeddings.masked_fill(~encoded.valid[..., None], 50.0)
        poisoned = EncodedImages(filled, encoded.valid)
        assert tiny_engine.caption(poisoned) == tiny_engine.caption(encoded)
        assert tiny_engine.match(poisoned, ["a b"]) == tiny_engine.match(encoded, ["a b"])
        unmasked = EncodedImages(filled)
        assert tiny_engine.match(unmasked, ["a b"]) != tiny_engine.match(encoded, ["a b"])

    def test_when_an_image_is_replaced_then_the_others_stay(
        self, tiny_engine: Engine, encoded: EncodedImages
    ) -> None:
        assert encoded.valid is not None
        images = mixed_images()
        images[1] = noise_images(1, seed=99, size=SHAPES[1])[0]
        changed = tiny_engine.encode(images, "native")
        differ = (changed.embeddings - encoded.embeddings)[encoded.valid].abs()
        rows = encoded.valid.nonzero()[:, 0]
        assert differ[rows != 1].max() == 0
        assert differ[rows == 1].max() > 0.01

    def test_when_all_have_as_many_patches_then_there_is_no_mask(self, tiny_engine: Engine) -> None:
        images = [noise_images(1, n, size)[0] for n, size in enumerate([(96, 96), (400, 100)])]
        encoded = tiny_engine.encode(images, "native")
        assert encoded.valid is None
        for row, image in zip(encoded.embeddings, images, strict=True):
            alone = tiny_engine.encode(image, "native").embeddings[0]
            assert (row - alone).abs().max() < 1e-5


def test_given_the_default_then_images_are_squashed_to_the_checkpoints_size(
    tiny_engine: Engine,
) -> None:
    assert tiny_engine.normalised(mixed_images()).shape == (5, 3, 32, 32)
    assert tiny_engine.encode(mixed_images()).valid is None


def test_given_more_grids_than_are_kept_then_numbers_stay_right(tiny_engine: Engine) -> None:
    embeddings = tiny_engine._modules.vision.embeddings
    first = embeddings.positions((2, 3))
    assert embeddings.positions((2, 3)) is first
    for columns in range(1, _GRIDS_KEPT + 1):
        embeddings.positions((1, columns))
    again = embeddings.positions((2, 3))
    assert again is not first
    assert again.equal(first)
    assert len(embeddings._interpolated) == _GRIDS_KEPT


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ({"resolution": 36}, InputError, "multiple of the patch size, 8, not 36"),
        ({"resolution": 72}, InputError, "resolution must be 32 to 64 here, not 72"),
        ({"mode": "zoom"}, ValueError, "mode must be stretch, pad, crop, native, not 'zoom'"),
    ],
)
def test_given_a_framing_that_cannot_be_then_the_error_says_what_can(
    tiny_engine: Engine, names: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny_engine.caption(noise_images(1), **names)


def test_given_mixed_grids_when_normalised_then_the_error_sends_to_encode(
    tiny_engine: Engine,
) -> None:
    with pytest.raises(ValueError, match="or encode them"):
        tiny_engine.normalised(mixed_images(), "native")
