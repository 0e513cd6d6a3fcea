"""The words of a caption on one picture: the image under the map of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from worker.blip.explanation import Explanation
from worker.blip.placement import PlacedGrid
from worker.pictures.ground import Ground, ground
from worker.pictures.lettering import Lettering
from worker.pictures.mapping import mapping
from worker.pictures.overlay import MOST_WORDS, check, png, tinted
from worker.pictures.saying import probability

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WIDTH = 800
MARGIN = 16
_MOST_COLUMNS = 4
_TALLEST = 480
_LOWEST = 96
"""Pixels of a tile's height: at most, and at least where fewer columns can give it that."""
_TITLE_LINES, _LABEL_LINES = 4, 2
_PAPER, _INK, _QUIET = "#ffffff", "#1a1a1a", "#555555"


@dataclass(frozen=True)
class Layout:
    """Tiles in rows. cell: pixels from a tile's left edge to its column's right one."""

    columns: int
    rows: int
    cell: int
    tile: tuple[int, int]


def layout(words: int, width: int, height: int) -> Layout:
    """Of so many words over an image of width x height pixels.

    As many columns as leave tiles high enough to be read, so that very wide images have one.
    """
    for columns in range(max(1, min(words, _MOST_COLUMNS)), 0, -1):
        cell = (WIDTH - MARGIN) // columns - MARGIN
        scale = min(cell / width, _TALLEST / height)
        tile = max(1, round(width * scale)), max(1, round(height * scale))
        if tile[1] >= _LOWEST:
            break
    return Layout(columns, ceil(words / columns), cell, tile)


def contact_sheet(image: Ground, explanation: Explanation, placed: PlacedGrid) -> bytes:
    """A PNG, WIDTH pixels wide: the caption, then a tile for each word, with its probability.

    Of more than MOST_WORDS words, the first have tiles, and the sheet says so.

    Raises:
        ValueError: for an image of another size than `placed` is for, or maps of another grid.
        NotInstalled: without matplotlib.
    """
    from PIL import Image, ImageDraw

    check(image, explanation.maps, placed)
    title, label, small = Lettering(22, bold=True), Lettering(16), Lettering(14)
    shown_words = explanation.words[:MOST_WORDS]
    cut = len(shown_words) < len(explanation.words)
    said = [f"The first {MOST_WORDS} of {len(explanation.words)} words"] if cut else []
    plan = layout(len(shown_words), placed.width, placed.height)
    heading = title.lines(explanation.text, WIDTH - 2 * MARGIN, _TITLE_LINES)
    names = [label.lines(word.text, plan.cell, _LABEL_LINES) for word in shown_words]
    under = label.line * max(map(len, names), default=0) + small.line
    step = plan.tile[1] + 6 + under + MARGIN
    under_title = MARGIN + title.line * len(heading)
    top = under_title + small.line * len(said) + MARGIN // 2
    sheet = Image.new("RGB", (WIDTH, top + step * plan.rows + MARGIN // 2), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, title, heading, (WIDTH / 2, MARGIN), _INK)
    _write(draw, small, said, (WIDTH / 2, under_title), _QUIET)
    shown, lies = ground(image, plan.tile), mapping(placed)
    words = zip(shown_words, explanation.maps[:MOST_WORDS], names, strict=True)
    for number, (word, shares, name) in enumerate(words):
        row, column = divmod(number, plan.columns)
        left, y = MARGIN + column * (plan.cell + MARGIN), top + row * step
        sheet.paste(tinted(shown, shares, lies), (left + (plan.cell - plan.tile[0]) // 2, y))
        y += plan.tile[1] + 6
        middle = left + plan.cell / 2
        _write(draw, label, name, (middle, y), _INK)
        sure = probability(word)
        if sure is not None:
            below = (middle, y + label.line * len(name))
            _write(draw, small, [f"{sure:.2f}"], below, _QUIET)
    return png(sheet)


def _write(
    draw: "ImageDraw", lettering: Lettering, lines: Sequence[str], at: tuple[float, float], ink: str
) -> None:
    """Lines one below another, their middle at x, the first one's top at y."""
    for number, line in enumerate(lines):
        lettering.put(draw, (at[0], at[1] + number * lettering.line), line, ink, "ma")
