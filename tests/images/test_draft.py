"""A large JPEG decoded at reduced size against the same at full size: pixels, and captions.

DRAFT_SCENES says how many scenes are tried; `make test` tries three.
"""

import io
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.images.sample import noise
from worker.blip import Engine
from worker.blip.framing import Framing
from worker.image import ImageLimits, decode
from worker.settings import BUNDLED, model_path
from worker.training.scenes import draw, sample

FEW = 3
SCENES = int(os.environ.get("DRAFT_SCENES", FEW))
DRAFTED = ImageLimits()
FAST = replace(DRAFTED, draft="fast")
FULL = replace(DRAFTED, draft="off")
SIZE = (4_000, 3_000)  # 12 MP
GREY = "grey"


def framing(side: int = 384, patch: int = 16) -> Framing:
    return Framing("stretch", (side, side), patch, Image.Resampling.BICUBIC, (123, 117, 104))


def scenes(count: int) -> Iterator[Image.Image]:
    for number in range(count):
        scene = sample(random.Random(f"draft {number}"), shapes=1 + number % 2)
        yield draw(scene, SIZE[1]).resize(SIZE, Image.Resampling.BILINEAR)


@lru_cache(1)
def photograph(size: tuple[int, int], seed: int = 1) -> Image.Image:
    """Gradients, edges between them, and texture at every scale that a sensor would see."""
    width, height = size
    light = Image.fromarray(noise(5, 6, 3, seed=seed).astype(np.uint8)).resize(size, 3)
    things = Image.fromarray(noise(7, 9, 3, seed=seed + 1).astype(np.uint8)).resize(size, 0)
    mask = Image.fromarray(noise(11, 13, 1, seed=seed + 2)[..., 0].astype(np.uint8)).resize(size, 3)
    mixed = Image.composite(light, things, mask.point(lambda v: 255 if v > 127 else 0))
    total = np.asarray(mixed).astype(np.float32)
    rng = np.random.default_rng(seed)
    for cell, strength in ((64, 8), (16, 6), (4, 5), (2, 4)):
        grain = rng.normal(0, strength, (height // cell + 1, width // cell + 1)).astype(np.float32)
        total += np.asarray(Image.fromarray(grain).resize(size, Image.Resampling.BILINEAR))[
            ..., None
        ]
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def fine_print(size: tuple[int, int]) -> Image.Image:
    """Cells of 12 pixels, black or white."""
    bits = noise(size[1] // 12 + 1, size[0] // 12 + 1, 1, 1)[..., 0].astype(np.uint8) * 255
    return Image.fromarray(bits).resize((size[0] // 12 * 12, size[1] // 12 * 12), 0).convert("RGB")


def jpeg(image: Image.Image, colours: str) -> bytes:
    out = io.BytesIO()
    if colours == GREY:
        image.convert("L").save(out, "JPEG", quality=92)
    else:
        image.save(out, "JPEG", quality=92, subsampling=colours)
    return out.getvalue()


def both(
    data: bytes, seen: Framing, limits: ImageLimits = DRAFTED
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    [drafted] = decode(data, limits, seen).images
    [full] = decode(data, FULL, seen).images
    return drafted, full


def apart(data: bytes, seen: Framing, limits: ImageLimits = DRAFTED) -> NDArray[Any]:
    drafted, full = both(data, seen, limits)
    return np.abs(drafted.astype(int) - full)


@pytest.mark.parametrize("colours", ["4:4:4", GREY])
def test_given_a_large_photograph_when_drafted_then_it_hardly_differs_from_a_full_decoding(
    colours: str,
) -> None:
    difference = apart(jpeg(photograph(SIZE), colours), framing())
    print(f"{colours}: {told(difference)}")
    assert 0 < difference.mean() <= 0.2
    assert difference.max() <= 4


@pytest.mark.parametrize(("colours", "limits"), [("4:4:4", DRAFTED), ("4:2:0", FAST)])
def test_given_scenes_of_12_mp_when_drafted_then_their_captions_are_the_same(
    colours: str, limits: ImageLimits
) -> None:
    """Saturated colours with sharp edges."""
    engine = Engine.load(model_path(BUNDLED), device="cpu", tasks=("caption",))
    largest = np.zeros(1)
    for number, image in enumerate(scenes(SCENES)):
        data = jpeg(image, colours)
        for seen in (framing(), engine.framing("stretch", None)):
            drafted, full = both(data, seen, limits)
            difference = np.abs(drafted.astype(int) - full)
            assert 0 < difference.mean() <= 0.2
            assert difference.max() <= (4 if limits is DRAFTED else 12)
            largest = max(largest, difference, key=lambda values: values.max())
        one, other = engine.caption([drafted, full], num_beams=1, mode="native")
        assert one[0].text == other[0].text, f"scene {number}"
    print(f"{SCENES} scenes, {colours}, at most: {told(largest)}")


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2"])
def test_given_colours_at_half_the_resolution_when_of_12_mp_then_only_a_fast_draft_is_made(
    subsampling: str,
) -> None:
    data = jpeg(photograph(SIZE), subsampling)
    assert not apart(data, framing()).any()
    difference = apart(data, framing(), FAST)
    print(f"fast, {subsampling}: {told(difference)}")
    assert 0 < difference.mean() <= 0.25
    assert 4 < difference.max() <= 12


def test_given_the_finest_print_when_drafted_then_it_differs_by_a_few_levels() -> None:
    """Cells of 12 pixels, black or white at random: the worst that is known."""
    difference = apart(jpeg(fine_print(SIZE), "4:4:4"), framing())
    print(told(difference))
    assert 0 < difference.mean() <= 0.8
    assert difference.max() <= 8


@pytest.mark.parametrize(
    ("size", "subsampling"),
    [((3_200, 2_879), "4:4:4"), ((4_000, 3_000), "4:2:0"), ((7_000, 6_000), "4:2:2")],
)
def test_given_less_than_is_left_of_it_when_decoded_then_nothing_is_drafted(
    size: tuple[int, int], subsampling: str
) -> None:
    assert not apart(jpeg(photograph(size), subsampling), framing()).any()


def told(apart: NDArray[Any]) -> str:
    above = int((apart > 4).sum())
    return f"mean {apart.mean():.3f}, max {apart.max()}, {above} of {apart.size} above 4"
