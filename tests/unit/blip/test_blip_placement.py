"""Patches back on the images that they were cut from."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.blip.framing import Framing
from worker.blip.geometry import MODES, Mode
from worker.blip.placement import Located, peak, placed, region

SIZES = st.integers(1, 3_000)


def framing(mode: Mode, side: int = 96, patch: int = 12) -> Framing:
    return Framing(mode, (side, side), patch, 3, (123, 117, 104))


@pytest.mark.parametrize(
    ("mode", "size", "cell", "extent"),
    [
        ("stretch", (192, 96), (0, 0), (0, 0, 24, 12)),
        ("stretch", (192, 96), (7, 7), (168, 84, 192, 96)),
        ("stretch", (1, 1), (0, 7), (0.875, 0, 1, 0.125)),
        ("pad", (192, 96), (2, 0), (0, 0, 24, 24)),
        ("pad", (192, 96), (5, 7), (168, 72, 192, 96)),
        ("pad", (192, 96), (1, 3), None),
        ("pad", (192, 96), (6, 3), None),
        ("pad", (100, 100), (4, 4), (50, 50, 62.5, 62.5)),
        ("pad", (192, 168), (0, 0), (0, 0, 24, 12)),
        ("crop", (192, 96), (0, 0), (48, 0, 60, 12)),
        ("crop", (192, 96), (7, 7), (132, 84, 144, 96)),
        ("crop", (96, 192), (0, 0), (0, 48, 12, 60)),
        ("native", (320, 80), (0, 0), (0, 0, 20, 20)),
        ("native", (320, 80), (3, 15), (300, 60, 320, 80)),
        ("native", (80, 320), (15, 3), (60, 300, 80, 320)),
    ],
)
def test_given_a_patch_then_its_extent_is_what_it_shows_of_the_image(
    mode: Mode,
    size: tuple[int, int],
    cell: tuple[int, int],
    extent: tuple[float, ...] | None,
) -> None:
    found = placed(framing(mode), *size).extent(*cell)
    assert found == (extent if extent is None else pytest.approx(extent))


@given(st.sampled_from(MODES), SIZES, SIZES)
def test_given_any_image_then_its_patches_tile_what_the_mode_keeps_of_it(
    mode: Mode, width: int, height: int
) -> None:
    grid = placed(framing(mode), width, height)
    extents = [extent for extent in grid.extents() if extent]
    for left, top, right, bottom in extents:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in extents)
    cut = grid.placement.box or (0, 0, width, height)
    assert area == pytest.approx((cut[2] - cut[0]) * (cut[3] - cut[1]))


@given(st.sampled_from(MODES), SIZES, SIZES, st.integers(0, 2**32 - 1))
def test_given_any_map_then_peak_and_box_lie_on_the_image_and_the_box_has_half_of_it(
    mode: Mode, width: int, height: int, seed: int
) -> None:
    grid = placed(framing(mode), width, height)
    shares = np.random.default_rng(seed).gamma(0.2, size=grid.grid)
    found = grid.locate(shares / shares.sum())
    left, top, right, bottom = found.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    cut = grid.placement.box or (0, 0, width, height)
    assert cut[0] <= found.peak[0] <= cut[2]
    assert cut[1] <= found.peak[1] <= cut[3]
    assert 0 < found.coverage <= 1
    assert 0 <= found.entropy <= math.log(shares.size) + 1e-9
    inside = total = 0.0
    for share, extent in zip(shares.ravel(), grid.extents(), strict=True):
        if extent is None:
            continue
        total += share
        if left <= extent[0] and extent[2] <= right and top <= extent[1] and extent[3] <= bottom:
            inside += share
    assert inside >= total / 2 - 1e-6


def test_given_a_map_of_one_patch_then_all_of_it_is_there() -> None:
    shares = np.zeros((8, 8), np.float32)
    shares[2, 5] = 1
    found = placed(framing("stretch"), 800, 400).locate(shares)
    assert found == Located((550, 125), (500, 100, 600, 150), 0, 100 * 50 / (800 * 400))


def test_given_a_map_that_spreads_then_its_peak_is_between_patches() -> None:
    shares = np.zeros((8, 8))
    shares[2, 5], shares[2, 6], shares[3, 5], shares[7, 0] = 0.4, 0.2, 0.2, 0.2
    assert peak(shares) == pytest.approx((2.75, 5.75))
    found = placed(framing("stretch"), 800, 400).locate(shares)
    assert found.peak == pytest.approx((575, 137.5))


def test_given_a_peak_at_the_edge_of_the_padding_then_it_stays_on_the_picture() -> None:
    shares = np.zeros((8, 8))
    shares[0, 0] = 1
    grid = placed(framing("pad"), 192, 164)  # 82 rows of 96: the first patch shows 5 of them
    assert grid.point(0.5, 0.5)[1] < 0
    assert grid.locate(shares).peak == (12, 0)


def test_given_an_even_map_then_its_entropy_is_the_logarithm_of_its_patches() -> None:
    found = placed(framing("stretch"), 96, 96).locate(np.full((8, 8), 1 / 64))
    assert found.entropy == pytest.approx(math.log(64))
    assert found.coverage == pytest.approx(0.5)


def test_given_a_map_in_the_padding_then_it_does_not_count() -> None:
    shares = np.zeros((8, 8), np.float32)
    shares[0], shares[4, 3] = 0.1, 0.2  # the first row is above the picture
    found = placed(framing("pad"), 192, 96).locate(shares)
    assert found.peak == (84, 60)
    assert found.entropy == 0
    shares[4, 3] = 0
    assert placed(framing("pad"), 192, 96).locate(shares).box == (0, 0, 192, 48)


def test_given_shares_then_the_region_is_of_the_fewest_that_hold_half() -> None:
    assert region(np.array([0.1, 0.3, 0.05, 0.3, 0.25])) == [1, 3]
    assert region(np.array([0.5, 0.5])) == [0]
    assert region(np.array([0.2, 0.2, 0.6])) == [2]


def test_given_a_map_of_another_grid_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match="grid"):
        placed(framing("native"), 320, 80).locate(np.ones((8, 8)))
