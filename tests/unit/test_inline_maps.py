"""Maps and a small picture of the image inside results: exact, on the original, and bounded."""

import io
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from producer.contract import (
    CaptionJob,
    CaptionOptions,
    ExplainJob,
    ExplainOptions,
    MatchJob,
    WordsExplained,
)
from tests.explained import MODES, at, explained, grid_on
from worker.blip import Engine
from worker.blip.geometry import Mode
from worker.blip.placement import PlacedGrid, placed
from worker.maps import MOST_CELLS, MOST_PREVIEW_BYTES, inline_cells, preview, words_explained
from worker.training.evaluate import BUNDLED
from worker.training.scenes import Scene, Shape, draw

IMAGE = "https://example.com/a.png"
INLINE = ExplainOptions(inline=True)


def drawn(found: WordsExplained) -> NDArray[np.uint8]:
    """A result's maps, as whoever has it reads them: uint8 [words, rows, columns]."""
    rows, columns = found.map_grid or (0, 0)
    flat = [np.frombuffer(word.cells(), np.uint8) for word in found.words]
    return np.stack(flat).reshape(-1, rows, columns)


def brightest(found: WordsExplained, word: int) -> tuple[float, float]:
    """(x, y) of the middle of a map's largest cell, by the result alone."""
    cells = drawn(found)[word]
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    left, top, right, bottom = found.map_box or (0, 0, 0, 0)
    x = left + (column + 0.5) * (right - left) / cells.shape[1]
    return float(x), float(top + (row + 0.5) * (bottom - top) / cells.shape[0])


def visible(on: PlacedGrid, maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps [words, rows, columns] without cells of padding."""
    shown = np.array([extent is not None for extent in on.extents()]).reshape(on.grid)
    return maps[:, shown.any(axis=1)][:, :, shown.any(axis=0)]


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_any_mode_then_a_decoded_map_is_the_models_within_half_a_step_of_its_largest(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    found = explained(["a", "red", "circle"], on.grid)

    said = words_explained(found, found.text, on, None, MOST_CELLS)

    expected = visible(on, found.maps)
    largest = expected.max(axis=(1, 2), keepdims=True)
    cells = drawn(said)
    assert cells.shape == expected.shape
    assert (cells.max(axis=(1, 2)) == 255).all()
    assert np.abs(cells / 255 - expected / largest).max() <= 0.5 / 255 + 1e-6
    if expected.shape == found.maps.shape:
        assert said.map_grid == said.grid == on.grid


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_any_mode_then_the_box_says_where_each_cell_lies_on_the_original(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    rows, columns = on.grid
    shown = [
        (row, column) for row in range(rows) for column in range(columns) if on.extent(row, column)
    ]
    each = [at(on.grid, *cell) for cell in shown]
    found = explained([f"w{place}" for place in range(len(each))], each)

    said = words_explained(found, found.text, on, None, MOST_CELLS)

    for place, (row, column) in enumerate(shown):
        assert brightest(said, place) == pytest.approx(on.point(row + 0.5, column + 0.5), abs=0.1)
    left, top, right, bottom = said.map_box or (0, 0, 0, 0)
    across, down = (
        value / count
        for value, count in zip(
            (right - left, bottom - top), (said.map_grid or (1, 1))[::-1], strict=True
        )
    )
    if mode == "crop":
        assert max(right - left, bottom - top) < max(size)
    else:
        assert (-across, -down) < (left, top) <= (0.01, 0.01)
        assert size[0] - 0.01 <= right < size[0] + across
        assert size[1] - 0.01 <= bottom < size[1] + down


def test_given_a_peak_in_the_padding_then_what_is_brightest_is_on_the_image() -> None:
    on = grid_on(500, 200, "pad")
    shares = at(on.grid, 0, 0) * np.float32(0.9) + at(on.grid, 4, 3) * np.float32(0.1)

    said = words_explained(explained(["a"], [shares]), "a", on, None, MOST_CELLS)

    assert brightest(said, 0) == pytest.approx(on.point(4.5, 3.5), abs=0.1)
    assert drawn(said).max() == 255


def test_given_nothing_on_a_map_then_it_is_black_and_nothing_fails() -> None:
    on = grid_on(300, 300)
    said = words_explained(
        explained(["a"], [np.zeros(on.grid, np.float32)]), "a", on, None, MOST_CELLS
    )
    assert not drawn(said).any()


@pytest.mark.parametrize(
    ("mode", "canvas"),
    [
        ("stretch", (1.3, 0.8)),
        ("pad", (1.6, 0.9)),
        ("pad", (0.9, 1.5)),
        ("crop", (1.25, 1.0)),
        ("native", (1.6, 0.9)),
        ("native", (0.8, 1.7)),
    ],
)
def test_given_a_drawn_shape_then_the_inline_map_is_brightest_in_its_box_on_the_original(
    engine: Engine, mode: Mode, canvas: tuple[float, float]
) -> None:
    side, middle = 173, (canvas[0] * 0.35, canvas[1] * 0.4)
    radius = min(canvas) * 0.24
    box = (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
    gray = (123, 117, 104)
    scene = Scene((Shape("circle", "red", "large", box, (220, 30, 30)),), "gray", gray, None)
    image, framing = draw(scene, side, canvas), engine.framing(mode)
    framed = [framing.frame(image)]
    captions = engine.caption(framed, mode="native", num_beams=1)
    [[found]] = engine.explain(framed, captions, mode="native")

    said = words_explained(found, found.text, placed(framing, *image.size), None, MOST_CELLS)

    place = [word.text for word in said.words].index("red")
    x, y = brightest(said, place)
    left, top, right, bottom = (side * value for value in box)
    assert left <= x <= right
    assert top <= y <= bottom


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(BUNDLED)


@pytest.mark.parametrize(
    ("words", "patches", "most_bytes"), [(20, 24, 15_400), (20, 64, 110_000), (500, 24, 400_000)]
)
def test_given_captions_of_published_sizes_then_their_maps_take_few_bytes(
    words: int, patches: int, most_bytes: int
) -> None:
    on = grid_on(384, 384, patches=patches)
    found = explained(["w"] * words, on.grid)

    said = words_explained(found, found.text, on, None, inline_cells(caption(1)))

    assert said.map_grid == on.grid
    assert sum(len(word.map or "") for word in said.words) <= most_bytes


@pytest.mark.parametrize("texts", [1, 16])
def test_given_very_many_words_then_cells_are_larger_and_the_whole_is_bounded(texts: int) -> None:
    on = grid_on(384, 384, patches=64)
    found = explained(["w"] * 500, on.grid)
    job = ExplainJob(image=IMAGE, texts=("w",) * texts, explain=INLINE)

    said = words_explained(found, found.text, on, None, inline_cells(job))

    rows, columns = said.map_grid or (0, 0)
    assert 0 < rows == columns < 64
    assert texts * sum(len(word.cells()) for word in said.words) <= MOST_CELLS
    assert said.map_box is not None
    assert said.map_box[2:] >= (384, 384)


def caption(number: int, explain: ExplainOptions | None = INLINE) -> CaptionJob:
    options = CaptionOptions(num_beams=10, num_return_sequences=number)
    return CaptionJob(image=IMAGE, options=options, explain=explain)


@pytest.mark.parametrize(
    ("job", "cells"),
    [
        (caption(1), MOST_CELLS),
        (caption(10), MOST_CELLS // 10),
        (MatchJob(image=IMAGE, texts=("a", "b", "c"), explain=INLINE), MOST_CELLS // 3),
        (ExplainJob(image=IMAGE, texts=("a",) * 16, explain=INLINE), MOST_CELLS // 16),
        (caption(1, ExplainOptions()), 0),
        (caption(1, None), 0),
    ],
)
def test_given_a_job_then_its_captions_and_texts_share_what_a_result_has_room_for(
    job: Any, cells: int
) -> None:
    assert inline_cells(job) == cells


def test_given_no_wish_for_them_then_a_result_has_no_maps() -> None:
    on = grid_on(300, 300)
    said = words_explained(explained(["a"], on.grid), "a", on, None)
    assert (said.map_grid, said.map_box, said.words[0].map) == (None, None, None)
    with pytest.raises(ValueError, match="inline"):
        said.words[0].cells()


@pytest.mark.parametrize("size", [(512, 300), (30, 512), (1, 1), (512, 512)])
def test_given_pixels_then_the_preview_is_a_small_jpeg_of_them(size: tuple[int, int]) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, :, 0] = 200

    made = preview(pixels)

    file = b64decode(made.data, validate=True)
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.size) == ("JPEG", size)
        assert not image.getexif()
        assert np.asarray(image)[0, 0] == pytest.approx([200, 0, 0], abs=6)
    assert (made.width, made.height) == size


def test_given_noise_that_no_jpeg_makes_small_then_the_preview_is_bounded_all_the_same() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), np.uint8)
    made = preview(noise)
    assert len(b64decode(made.data)) <= MOST_PREVIEW_BYTES
    assert (made.width, made.height) in {(512, 512), (256, 256)}
