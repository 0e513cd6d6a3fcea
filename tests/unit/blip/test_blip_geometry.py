"""Grids, letterboxes, crops and limits: tables, and what holds for every size."""

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.blip.geometry import (
    MODES,
    Box,
    Grid,
    Mode,
    Placement,
    aspect_grids,
    centre_box,
    letterbox,
    nearest_grid,
    place,
    size_at,
)

SIDES = st.integers(1, 20_000)
SQUARES = st.integers(1, 60)


def test_given_the_published_grid_then_the_grids_are_nine() -> None:
    wide = [(21, 27), (18, 32), (14, 41), (12, 48)]
    assert set(aspect_grids(24, 24)) == {(24, 24), *wide, *((c, r) for r, c in wide)}


@pytest.mark.parametrize(
    ("own", "grids"),
    [
        ((1, 1), {(1, 1)}),
        ((2, 2), {(2, 2), (1, 4), (4, 1)}),
        ((8, 8), {(8, 8), (7, 9), (6, 10), (5, 12), (4, 16), (9, 7), (10, 6), (12, 5), (16, 4)}),
    ],
)
def test_given_a_small_grid_then_its_grids_derive_from_it(own: Grid, grids: set[Grid]) -> None:
    assert set(aspect_grids(*own)) == grids


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((640, 640), (24, 24)),
        ((640, 600), (24, 24)),
        ((640, 480), (21, 27)),
        ((1920, 1080), (18, 32)),
        ((1080, 1920), (32, 18)),
        ((3000, 1000), (14, 41)),
        ((400, 100), (12, 48)),
        ((100, 400), (48, 12)),
        ((10_000, 1), (12, 48)),
        ((1, 10_000), (48, 12)),
    ],
)
def test_given_an_image_then_the_grid_of_the_nearest_aspect_is_chosen(
    size: tuple[int, int], grid: Grid
) -> None:
    assert nearest_grid(aspect_grids(24, 24), *size) == grid


@pytest.mark.parametrize(
    ("size", "resized", "offset"),
    [
        ((800, 200), (384, 96), (0, 144)),
        ((200, 800), (96, 384), (144, 0)),
        ((640, 480), (384, 288), (0, 48)),
        ((50, 50), (384, 384), (0, 0)),
        ((9_999, 1), (384, 1), (0, 191)),
        ((301, 300), (384, 383), (0, 0)),
    ],
)
def test_given_an_image_when_letterboxed_then_it_lies_in_the_middle(
    size: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int]
) -> None:
    assert letterbox(*size, (384, 384)) == Placement((384, 384), resized, offset)


@pytest.mark.parametrize(
    ("size", "canvas", "box"),
    [
        ((800, 200), (384, 384), (300, 0, 500, 200)),
        ((200, 801), (384, 384), (0, 300, 200, 500)),
        ((50, 50), (384, 384), None),
        ((1, 9), (384, 384), (0, 4, 1, 5)),
        ((100, 100), (32, 16), (0, 25, 100, 75)),
        ((64, 32), (32, 16), None),
    ],
)
def test_given_an_image_when_cropped_then_the_box_is_central(
    size: tuple[int, int], canvas: tuple[int, int], box: Box | None
) -> None:
    assert centre_box(*size, canvas) == box


@pytest.mark.parametrize(
    ("own", "resolution", "size"),
    [
        ((384, 384), None, (384, 384)),
        ((384, 384), 384, (384, 384)),
        ((384, 384), 480, (480, 480)),
        ((384, 384), 768, (768, 768)),
        ((32, 128), None, (32, 128)),
        ((32, 128), 128, (128, 128)),
    ],
)
def test_given_a_resolution_then_the_size_is_a_square_of_that_side(
    own: tuple[int, int], resolution: int | None, size: tuple[int, int]
) -> None:
    assert size_at(own, 16, resolution) == size


@pytest.mark.parametrize(
    ("resolution", "message"),
    [
        (385, "a multiple of the patch size, 16, not 385"),
        (368, "384 to 768 here, not 368"),
        (784, "384 to 768 here, not 784"),
        (0, "384 to 768"),
        (-16, "384 to 768"),
    ],
)
def test_given_a_resolution_out_of_bounds_then_the_error_names_them(
    resolution: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        size_at((384, 384), 16, resolution)


@settings(deadline=None)
@given(rows=SQUARES, columns=SQUARES)
def test_given_any_grid_then_its_grids_are_at_most_nine_within_its_budget(
    rows: int, columns: int
) -> None:
    grids = aspect_grids(rows, columns)
    assert grids[0] == (rows, columns)
    assert len(grids) <= 9
    assert all(1 <= r * c <= rows * columns for r, c in grids)


@settings(deadline=None)
@given(side=st.integers(8, 60), width=SIDES, height=SIDES)
def test_given_an_aspect_up_to_four_when_native_then_it_changes_by_half_at_most(
    side: int, width: int, height: int
) -> None:
    rows, columns = nearest_grid(aspect_grids(side, side), width, height)
    within = min(log(4), max(-log(4), log(width / height)))
    assert abs(log(columns / rows) - within) < log(1.5)


@settings(deadline=None)
@given(width=SIDES, height=SIDES)
def test_given_the_published_grid_when_native_then_an_aspect_changes_by_less_than_29_percent(
    width: int, height: int
) -> None:
    rows, columns = nearest_grid(aspect_grids(24, 24), width, height)
    within = min(log(4), max(-log(4), log(width / height)))
    assert abs(log(columns / rows) - within) < log(1.29)


@settings(deadline=None)
@given(width=SIDES, height=SIDES, mode=st.sampled_from(MODES), rows=SQUARES, columns=SQUARES)
def test_given_any_image_and_mode_then_it_lies_on_its_canvas_and_patches_tile_that(
    width: int, height: int, mode: Mode, rows: int, columns: int
) -> None:
    size = rows * 16, columns * 16
    placed = place(mode, width, height, size, 16)
    assert placed.canvas[0] % 16 == placed.canvas[1] % 16 == 0
    assert 0 < placed.canvas[0] * placed.canvas[1] <= size[0] * size[1]
    for offset, length, side in zip(placed.offset, placed.resized, placed.canvas, strict=True):
        assert 0 <= offset <= offset + length <= side
        assert length >= 1
    if placed.box is not None:
        left, top, right, bottom = placed.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    framed = place("native", *placed.canvas, size, 16)
    assert framed == Placement(placed.canvas, placed.canvas)


@settings(deadline=None)
@given(width=SIDES, height=SIDES)
def test_given_any_image_when_padded_then_its_aspect_is_kept_to_a_pixel(
    width: int, height: int
) -> None:
    resized = letterbox(width, height, (384, 384)).resized
    scale = 384 / max(width, height)
    assert abs(resized[0] - width * scale) < 1
    assert abs(resized[1] - height * scale) < 1
