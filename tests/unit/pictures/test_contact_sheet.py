"""Sheets of any number of words, over images of any shape, in any script."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from tests.explained import explained, gray, grid_on
from worker.pictures import lettering
from worker.pictures.contact_sheet import MARGIN, WIDTH, contact_sheet, layout
from worker.pictures.lettering import ABSENT, Lettering
from worker.pictures.overlay import MOST_WORDS

ARABIC = "قطة تجلس على الكرسي الأحمر"
HEBREW = "חתול יושב על כיסא"
CHINESE = "一只红色的猫坐在椅子上"


def drawn(text: str, size: int = 40) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    """Which pixels of a line are ink."""
    canvas = Image.new("L", (400, 60), 255)
    Lettering(size).put(ImageDraw.Draw(canvas), (0, 0), text, "#000000", "la")
    return np.asarray(canvas) < 128


@pytest.mark.parametrize("words", range(1, 31))
def test_given_up_to_thirty_words_then_each_has_a_tile_with_its_name_and_probability(
    words: int,
) -> None:
    on = grid_on(320, 240)

    sheet = Image.open(BytesIO(contact_sheet(gray(on), explained(["cat"] * words, on.grid), on)))

    plan = layout(words, 320, 240)
    assert sheet.width == WIDTH
    assert sheet.height < 800 * plan.rows
    seen = np.asarray(sheet)
    step = plan.tile[1]
    top = next(y for y in range(60, sheet.height) if tuple(seen[y, MARGIN + plan.cell // 2]) != (
        255, 255, 255))  # fmt: skip
    for number in range(words):
        row, column = divmod(number, plan.columns)
        left = MARGIN + column * (plan.cell + MARGIN)
        rows = (sheet.height - top) // plan.rows
        tile = seen[top + row * rows : top + row * rows + step, left : left + plan.cell]
        label = seen[top + row * rows + step : top + (row + 1) * rows, left : left + plan.cell]
        assert (tile.min(axis=2) < 250).mean() > 0.5
        assert (label.min(axis=2) < 128).sum() > 50


@pytest.mark.parametrize(
    ("size", "words", "columns"),
    [
        ((400, 300), 1, 1),
        ((400, 300), 2, 2),
        ((400, 300), 30, 4),
        ((1000, 300), 12, 2),
        ((4000, 200), 12, 1),
        ((200, 4000), 12, 4),
        ((9000, 1), 3, 1),
        ((1, 9000), 3, 3),
    ],
)
def test_given_an_image_of_any_shape_then_tiles_fit_their_columns_and_can_be_read(
    size: tuple[int, int], words: int, columns: int
) -> None:
    plan = layout(words, *size)

    assert (plan.columns, plan.rows) == (columns, -(-words // columns))
    assert 1 <= plan.tile[0] <= plan.cell
    assert 1 <= plan.tile[1] <= 480
    assert plan.tile[1] >= 96 or columns == 1
    assert columns * (plan.cell + MARGIN) + MARGIN <= WIDTH
    on = grid_on(*size)
    sheet = contact_sheet(gray(on), explained(["ring"] * words, on.grid), on)
    assert Image.open(BytesIO(sheet)).width == WIDTH


@pytest.mark.parametrize(
    "text",
    [
        CHINESE,
        ARABIC,
        HEBREW,
        "ᠮᠣᠩᠭᠣᠯ",
        "$x^{2$ \\frac % # _",
        "👩‍🚀🎈",
        "a\nb\tc\x00\x07",
        "\ud800",
        "Donaudampfschifffahrtsgesellschaftskapitän" * 9,
        "",
        "\u200f\u202e",
    ],
)
def test_given_any_script_then_a_sheet_is_drawn_without_a_warning(text: str) -> None:
    on = grid_on(320, 240)

    sheet = contact_sheet(gray(on), explained([text] * 3, on.grid), on)

    assert Image.open(BytesIO(sheet)).width == WIDTH


def test_given_more_words_than_have_tiles_then_the_sheet_is_a_line_higher_that_says_so() -> None:
    on = grid_on(320, 240)

    full, cut = (
        Image.open(BytesIO(contact_sheet(gray(on), explained(["a"] * words, on.grid), on)))
        for words in (MOST_WORDS, MOST_WORDS + 1)
    )

    assert cut.height == full.height + Lettering(14).line


def test_given_a_matched_text_then_no_probability_is_made_up() -> None:
    on = grid_on(320, 240)
    words = ["red"]

    matched = contact_sheet(gray(on), explained(words, on.grid, matched=True), on)
    captioned = contact_sheet(gray(on), explained(words, on.grid), on)

    ink = [int((np.asarray(Image.open(BytesIO(s))) < 128).sum()) for s in (matched, captioned)]
    assert ink[0] < ink[1]


def test_given_no_words_then_the_sheet_is_the_caption_alone() -> None:
    on = grid_on(320, 240)
    nothing = explained([], on.grid)

    assert Image.open(BytesIO(contact_sheet(gray(on), nothing, on))).height < 100


@pytest.mark.parametrize("text", [CHINESE * 20, ARABIC * 20, "a word " * 90, "x" * 600, "W" * 3])
def test_given_long_text_then_its_lines_fit_and_lose_nothing_unless_they_say_so(text: str) -> None:
    letters = Lettering(22)

    lines = letters.lines(text, 300, 1000)
    few = letters.lines(text, 300, 2)

    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(letters._width(line) <= 300 for line in [*lines, *few])
    assert len(few) <= 2
    assert few[-1].endswith("…") == (len(lines) > 2)


def test_given_letters_of_no_font_then_a_box_stands_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lettering, "_font_with", lambda letters: None)

    assert Lettering(16)._font("a猫b")[1] == f"a{ABSENT}b"


def test_given_ever_new_texts_then_what_is_kept_of_them_is_bounded() -> None:
    letters = Lettering(22)

    for first in range(0x4E00, 0x9E00, 0x100):
        letters.lines("".join(map(chr, range(first, first + 0x100))), 300, 4)

    kept = lettering._font_with.cache_info()
    assert kept.misses > 400
    assert kept.currsize <= 128


def test_given_rare_letters_then_the_font_of_signs_for_scripts_is_not_taken_for_theirs() -> None:
    assert "LastResort" not in str(lettering._font_with(frozenset(map(ord, "𓀀猫"))))


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow has no Raqm here")
def test_given_a_script_from_right_to_left_then_its_first_letter_is_the_rightmost() -> None:
    alone = drawn("ל")  # the only letter of these that rises above the others

    both = drawn("לוו")

    rises = np.flatnonzero(both[: int(np.flatnonzero(alone.any(axis=1))[0]) + 4].any(axis=0))
    assert rises.min() > np.flatnonzero(both.any(axis=0)).max() / 2
