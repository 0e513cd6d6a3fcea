"""Explanations as files."""

import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from tests.explained import MODES, explained, gray, grid_on
from worker.blip.geometry import Mode
from worker.pictures.overlay import MOST_WORDS
from worker.pictures.written import KINDS, Kind, arrays, write


def test_given_two_captions_then_each_has_its_files_and_the_page_is_of_both(tmp_path: Path) -> None:
    on = grid_on(60, 40)
    found = [explained(["a", "cat"], on.grid), explained(["dog"], on.grid)]

    names = write(found, gray(on), on, tmp_path / "new" / "folder", name="photo")

    assert names == [
        "photo.npz",
        "photo.word-01.png",
        "photo.word-02.png",
        "photo.sheet.png",
        "photo.caption-2.npz",
        "photo.caption-2.word-01.png",
        "photo.caption-2.sheet.png",
        "photo.html",
    ]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(names)


def test_given_a_text_of_hundreds_of_words_then_all_are_numbers_and_the_first_are_pictures() -> (
    None
):
    on = grid_on(60, 40)
    handed: dict[str, bytes] = {}

    write([explained(["a"] * 300, on.grid)], gray(on), on, handed.__setitem__, name="x")

    overlays = [f"x.word-{number:02}.png" for number in range(1, MOST_WORDS + 1)]
    assert list(handed) == ["x.npz", *overlays, "x.sheet.png", "x.html"]
    assert len(np.load(BytesIO(handed["x.npz"]))["maps"]) == 300


def test_given_a_callable_then_it_is_handed_what_a_folder_would_hold(tmp_path: Path) -> None:
    on = grid_on(60, 40)
    found = [explained(["a", "cat"], on.grid)]
    handed: dict[str, bytes] = {}

    names = write(found, gray(on), on, handed.__setitem__, name="photo")

    write(found, gray(on), on, tmp_path, name="photo")
    assert list(handed) == names
    assert handed == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("kind", "ending"),
    list(zip(KINDS, (".npz", ".word-01.png", ".sheet.png", ".html"), strict=True)),
)
def test_given_one_kind_then_only_that_is_written(kind: Kind, ending: str) -> None:
    on = grid_on(60, 40)
    handed: dict[str, bytes] = {}

    write([explained(["a"], on.grid)], gray(on), on, handed.__setitem__, name="x", kinds=[kind])

    assert list(handed) == [f"x{ending}"]


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_the_arrays_then_every_cell_can_be_found_on_the_image(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    one = explained(["a", "红色"], on.grid, [1.0, 0.5])

    read = np.load(BytesIO(arrays(one, on)), allow_pickle=False)

    assert read["maps"].dtype == np.float16
    assert np.allclose(read["maps"], one.maps, rtol=1e-3, atol=1e-6)
    assert read["words"].tolist() == ["a", "红色"]
    assert read["logprobs"].tolist() == pytest.approx([0, np.log(0.5)])
    assert (str(read["text"]), str(read["method"])) == ("a 红色", "attention")
    assert (read["grid"].tolist(), read["size"].tolist()) == (list(on.grid), list(size))
    rows, columns = np.indices(on.grid)
    corner = read["origin"] + np.stack([columns, rows], axis=-1) * read["cell"]
    left_top = np.maximum(corner, read["seen"][:2])
    right_bottom = np.minimum(corner + read["cell"], read["seen"][2:])
    for place, extent in zip(np.ndindex(*on.grid), on.extents(), strict=True):
        if extent is not None:
            assert [*left_top[place], *right_bottom[place]] == pytest.approx(extent)
        else:
            assert (left_top[place] >= right_bottom[place] - 1e-6).any()
    assert "raw" not in read


def test_given_raw_probabilities_then_they_are_there_with_their_tokens() -> None:
    on = grid_on(60, 40)
    raw = np.random.default_rng(0).random((2, 3, 1, *on.grid), np.float32)
    one = replace(explained(["cat"], on.grid, matched=True), raw=raw)

    read = np.load(BytesIO(arrays(one, on)), allow_pickle=False)

    assert np.allclose(read["raw"], raw, rtol=1e-3)
    assert read["tokens"].tolist() == ["cat"]
    assert np.isnan(read["logprobs"]).all()


def test_given_the_same_explanation_then_the_bytes_are_the_same() -> None:
    on = grid_on(60, 40)

    assert arrays(explained(["a"], on.grid), on) == arrays(explained(["a"], on.grid), on)


def test_given_arrays_alone_then_neither_matplotlib_nor_torch_is_needed() -> None:
    script = (
        "import sys; sys.modules.update(matplotlib=None, torch=None)\n"
        "from tests.explained import explained, gray, grid_on\n"
        "from worker.pictures.written import write\n"
        "on = grid_on(60, 40)\n"
        "print(write([explained(['a'], on.grid)], gray(on), on, print, name='x', "
        "kinds=['arrays']))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "['x.npz']"
