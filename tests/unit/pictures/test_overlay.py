"""Maps over images: on the right pixels, and on those alone."""

import sys
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.explained import GRAY, MODES, at, gray, grid_on
from worker.blip.geometry import Mode
from worker.blip.placement import PlacedGrid
from worker.pictures.colours import NotInstalled, colours
from worker.pictures.mapping import mapping
from worker.pictures.overlay import MOST_LONGEST, heat, overlay


def pixels(png: bytes) -> NDArray[np.float32]:
    """[H, W, 3] of a PNG file."""
    return np.asarray(Image.open(BytesIO(png)), dtype=np.float32)


def on_image(on: PlacedGrid) -> list[tuple[int, int]]:
    """The cells that show some of the image."""
    cells = ((row, column) for row in range(on.grid[0]) for column in range(on.grid[1]))
    return [cell for cell in cells if on.extent(*cell) is not None]


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_a_map_with_one_cell_then_the_overlay_is_brightest_on_what_it_shows_and_fades(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    for row, column in on_image(on):
        extent = on.extent(row, column)
        assert extent is not None
        left, top, right, bottom = extent

        values = heat(at(on.grid, row, column), mapping(on), size)

        y, x = np.unravel_index(int(values.argmax()), values.shape)
        assert left - 1 <= x < right + 1
        assert top - 1 <= y < bottom + 1
        far = values.copy()
        wide, high = mapping(on).cell
        far[
            max(0, int(top - 2 * high)) : int(bottom + 2 * high) + 1,
            max(0, int(left - 2 * wide)) : int(right + 2 * wide) + 1,
        ] = 0
        assert not far.any()


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_a_map_that_rises_evenly_then_so_does_the_overlay_by_the_places_of_the_cells(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    rows, columns = on.grid
    ramp = np.add.outer(np.arange(rows), np.arange(columns)).astype(np.float32)
    cells, lies = mapping(on).visible(ramp)

    values = heat(ramp, mapping(on), size) * cells.max()

    left, top, right, bottom = lies.seen
    inner = [  # two cells from each edge, where no cell is missing
        (x, y)
        for x in range(left, right, 7)
        for y in range(top, bottom, 7)
        if 1.5 < (x - lies.origin[0]) / lies.cell[0] < cells.shape[1] - 2
        and 1.5 < (y - lies.origin[1]) / lies.cell[1] < cells.shape[0] - 2
    ]
    assert inner
    origin = on.point(0, 0)
    for x, y in inner:
        expected = (x + 0.5 - origin[0]) / lies.cell[0] + (y + 0.5 - origin[1]) / lies.cell[1] - 1
        assert values[y, x] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_nothing_on_the_map_then_the_image_is_as_it_was_but_for_what_was_cropped_off(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)

    seen = pixels(overlay(gray(on), np.zeros(on.grid, np.float32), on))

    left, top, right, bottom = mapping(on).seen
    inside = np.zeros(seen.shape[:2], bool)
    inside[top:bottom, left:right] = True
    assert (seen[inside] == GRAY).all()
    assert (seen[~inside] < 60).all()
    assert inside.all() == (mode != "crop")


@pytest.mark.parametrize("size", [(500, 200), (190, 470)])
def test_given_a_map_of_padding_and_one_cell_then_padding_counts_for_nothing(
    size: tuple[int, int],
) -> None:
    on = grid_on(*size, "pad")
    row, column = on_image(on)[0]
    shares = np.ones(on.grid, np.float32)
    for cell in on_image(on):
        shares[cell] = 0
    shares[row, column] = 1e-3

    assert np.allclose(
        heat(shares, mapping(on), size),
        heat(at(on.grid, row, column), mapping(on), size),
        atol=1e-5,
    )


def test_given_values_then_more_is_brighter_and_covers_more_of_the_image() -> None:
    on = grid_on(80, 80, patches=2)
    shares = np.array([[0, 1], [2, 4]], np.float32)
    image = Image.new("RGB", (80, 80), (0, 0, 255))

    seen = pixels(overlay(image, shares, on))

    corners = [seen[0, 0], seen[0, -1], seen[-1, 0], seen[-1, -1]]
    assert corners[0].tolist() == [0, 0, 255]
    blue = [corner[2] for corner in corners]
    assert blue == sorted(blue, reverse=True)
    bright = [corner[:2].sum() for corner in corners]
    assert bright == sorted(bright)
    assert np.allclose(corners[3], 0.8 * colours()[255] + 0.2 * np.array([0, 0, 255]), atol=2)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((3000, 1500), 800, (800, 400)),
        ((1500, 3000), 1200, (600, 1200)),
        ((300, 200), 800, (300, 200)),
        ((4000, 3), 800, (800, 1)),
        ((1, 1), 800, (1, 1)),
        ((30, 20), 1, (1, 1)),
    ],
)
def test_given_any_image_then_the_overlay_has_its_aspect_ratio_and_no_more_pixels(
    size: tuple[int, int], longest: int, expected: tuple[int, int]
) -> None:
    on = grid_on(*size)

    png = overlay(np.zeros((size[1], size[0], 3), np.uint8), at(on.grid, 1, 1), on, longest)

    assert png.startswith(b"\x89PNG")
    assert Image.open(BytesIO(png)).size == expected


def test_given_what_does_not_belong_together_then_the_error_says_what() -> None:
    on = grid_on(300, 200)
    shares = at(on.grid, 0, 0)

    with pytest.raises(ValueError, match="200x300 pixels is not the 300x200"):
        overlay(Image.new("RGB", (200, 300)), shares, on)
    with pytest.raises(ValueError, match=r"a map of \(3, 3\) is none of the grid \(8, 8\)"):
        overlay(gray(on), at((3, 3), 0, 0), on)
    for longest in (0, MOST_LONGEST + 1):
        with pytest.raises(ValueError, match="1 to 1200 pixels"):
            overlay(gray(on), shares, on, longest)


def test_given_no_matplotlib_then_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    colours.cache_clear()
    on = grid_on(30, 30)

    with pytest.raises(NotInstalled, match=r"pip install 'captionq\[report\]'"):
        overlay(gray(on), at(on.grid, 0, 0), on)
