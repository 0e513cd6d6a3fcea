"""Cells of maps on the original image, in every mode."""

import numpy as np
import pytest

from tests.explained import MODES, grid_on
from worker.blip.geometry import Mode
from worker.pictures.mapping import mapping


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_any_mode_then_four_numbers_and_what_was_seen_say_where_each_cell_lies(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)

    lies = mapping(on)

    left, top, right, bottom = lies.seen
    for row in range(on.grid[0]):
        for column in range(on.grid[1]):
            x, y = (
                lies.origin[0] + column * lies.cell[0],
                lies.origin[1] + row * lies.cell[1],
            )
            found = (
                max(x, left),
                max(y, top),
                min(x + lies.cell[0], right),
                min(y + lies.cell[1], bottom),
            )
            expected = on.extent(row, column)
            if expected is None:
                assert found[0] >= found[2] - 1e-6 or found[1] >= found[3] - 1e-6
            else:
                assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_padding_then_visible_cells_are_those_that_show_some_of_the_image(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    numbers = np.arange(on.grid[0] * on.grid[1], dtype=np.float32).reshape(on.grid)

    cells, lies = mapping(on).visible(numbers)

    shown = [number for number, extent in enumerate(on.extents()) if extent is not None]
    assert cells.ravel().tolist() == shown
    row, column = divmod(shown[0], on.grid[1])
    assert lies.origin == pytest.approx(on.point(row, column))


def test_given_coarser_cells_then_they_are_means_and_lie_where_the_finer_did() -> None:
    lies = mapping(grid_on(300, 300, patches=5))
    maps = np.arange(25, dtype=np.float32).reshape(1, 5, 5)

    coarse, there = lies.coarser(maps, 2)

    assert coarse[0, 0, 0] == np.mean([0, 1, 5, 6])
    assert coarse[0, 2, 2] == 24  # of one cell that is there
    assert coarse.shape == (1, 3, 3)
    assert (there.origin, there.cell) == (lies.origin, (120, 120))
