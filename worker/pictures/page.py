"""A page of one image and its captions that needs nothing else: no network, no server, no library.

Hovering over a word, reaching it by keyboard or tapping it shows its map. What comes from outside,
captions and names, is text of the HTML, escaped; the script is given numbers alone, and the page's
policy (CSP) admits that script by its hash, and pictures inside the page.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.blip.explanation import ExplainedWord, Explanation
from worker.blip.placement import Located, PlacedGrid
from worker.pictures.colours import OPACITY, colours
from worker.pictures.ground import Ground, jpeg
from worker.pictures.mapping import Mapping, mapping
from worker.pictures.maps_as_bytes import fitted
from worker.pictures.overlay import DIMMED, MOST_WORDS, check
from worker.pictures.saying import METHODS_SAID, probability, said

MOST_BYTES = 1_000_000
"""Of the page, whatever the image and however many its words."""
MOST_HYPOTHESES = 10
MOST_CHARACTERS = 40
"""Of what is shown: captions, and characters of a word."""
_MOST_OF_TEXT = 400
"""Characters of a whole caption, or of the image's name."""
_MOST_CELLS = 225_000
"""Of all maps, a byte each before base64."""
_IMAGE_BYTES, _SPARE_BYTES = 500_000, 1_000
_LONGEST_IMAGE, _LONGEST_CANVAS = 1_000, 800


@dataclass(frozen=True)
class _Shown:
    """A hypothesis as far as the page has it, and what its maps [words, rows, columns] say."""

    text: str
    words: list[ExplainedWord]
    maps: NDArray[np.float32]
    located: list[Located]


def page(
    image: Ground, explanations: Sequence[Explanation], placed: PlacedGrid, name: str
) -> bytes:
    """The page, UTF-8, under MOST_BYTES: of one image and each of its explanations.

    Long captions are cut, and maps are made coarser, where they would not fit. name: of the image,
    as readers know it.

    Raises:
        ValueError: for no explanation, an image of another size than `placed` is for, or maps of
            another grid.
        NotInstalled: without matplotlib.
    """
    if not explanations:
        raise ValueError("a page is of at least one explanation")
    for one in explanations:
        check(image, one.maps, placed)
    every = [_shown(one, placed) for one in explanations[:MOST_HYPOTHESES]]
    lies, maps = fitted([one.maps for one in every], mapping(placed), _MOST_CELLS)
    size = placed.width, placed.height
    canvas = _canvas(*size)
    style, script = _part("page.css"), _part("page.js")
    fields = {
        "name": _text(name, _MOST_OF_TEXT),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "canvas_width": canvas[0],
        "canvas_height": canvas[1],
        "choice": _choice(every),
        "hypotheses": "".join(_section(place, one, size) for place, one in enumerate(every)),
        "method": f"Method: {explanations[0].method} ({METHODS_SAID[explanations[0].method]})",
        "left_out": _left_out(explanations),
        "data": json.dumps(_data(every, maps, lies), allow_nan=False),
    }
    template = Template(_part("page.html"))
    rest = _encoded(template.substitute(fields, image="", width="", height=""))
    room = min(_IMAGE_BYTES, MOST_BYTES - _SPARE_BYTES - len(rest))
    file, (width, height) = jpeg(image, size, _LONGEST_IMAGE, room * 3 // 4)
    picture = base64.b64encode(file).decode()
    return _encoded(template.substitute(fields, image=picture, width=width, height=height))


def _shown(explanation: Explanation, placed: PlacedGrid) -> _Shown:
    maps = explanation.maps[:MOST_WORDS]
    located = [placed.locate(shares) for shares in maps]
    return _Shown(explanation.text, explanation.words[:MOST_WORDS], maps, located)


def _canvas(width: int, height: int) -> tuple[int, int]:
    """Large for small images as well: marks are drawn on it."""
    scale = _LONGEST_CANVAS / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _data(
    every: Sequence[_Shown], maps: Sequence[NDArray[np.uint8]], lies: Mapping
) -> dict[str, Any]:
    """What the script is given: numbers, and bytes in base64."""
    return {
        "size": lies.size,
        "seen": lies.seen,
        "origin": lies.origin,
        "cell": lies.cell,
        "rows": maps[0].shape[1],
        "columns": maps[0].shape[2],
        "colours": base64.b64encode(colours().tobytes()).decode(),
        "opacity": OPACITY,
        "dimmed": DIMMED,
        "hypotheses": [
            {
                "maps": base64.b64encode(cells.tobytes()).decode(),
                "peaks": [[round(place, 1) for place in word.peak] for word in one.located],
                "boxes": [word.box for word in one.located],
            }
            for one, cells in zip(every, maps, strict=True)
        ],
    }


def _choice(every: Sequence[_Shown]) -> str:
    """Which caption is shown, where there are several."""
    if len(every) == 1:
        return ""
    rows = "".join(
        f'<label><input type="radio" name="hypothesis" value="{place}" autocomplete="off"'
        f'{"" if place else " checked"}><span dir="auto">{_text(one.text, _MOST_OF_TEXT)}'
        "</span></label>\n"
        for place, one in enumerate(every)
    )
    matched = any(word.logprob is None for one in every for word in one.words)
    legend = "Texts" if matched else "Captions"
    return f"<fieldset><legend>{legend}</legend>\n{rows}</fieldset>\n"


def _section(place: int, one: _Shown, size: tuple[int, int]) -> str:
    """A caption as buttons, and under it the bars of its words."""
    pairs = list(zip(one.words, one.located, strict=True))
    buttons = "\n".join(
        f'<button type="button" aria-pressed="false" '
        f'data-said="{_said(word, located, size)}">{_text(word.text)}</button>'
        for word, located in pairs
    )
    bars = "".join(_bar(word) for word in one.words)
    if bars:
        bars = f'<ol class="bars" aria-label="How likely each word was">\n{bars}</ol>\n'
    return (
        f'<section aria-label="Caption {place + 1}"{" hidden" if place else ""}>\n'
        '<div class="words" dir="auto" role="group" aria-label="Words of the caption">\n'
        f"{buttons}\n</div>\n{bars}</section>\n"
    )


def _said(word: ExplainedWord, located: Located, size: tuple[int, int]) -> str:
    text = ExplainedWord(word.text[:MOST_CHARACTERS], word.first, word.last, word.logprob)
    return escape(said(text, located.peak, *size))


def _bar(word: ExplainedWord) -> str:
    sure = probability(word)
    if sure is None:
        return ""
    return (
        f'<li><span dir="auto">{_text(word.text)}</span>'
        f'<svg aria-hidden="true"><rect width="{sure:.1%}" height="100%"/></svg>'
        f'<span class="sure">{sure:.2f}</span></li>\n'
    )


def _left_out(explanations: Sequence[Explanation]) -> str:
    """A sentence on what the page has no room for."""
    words = any(len(one.words) > MOST_WORDS for one in explanations[:MOST_HYPOTHESES])
    parts = [
        f"captions after the first {MOST_HYPOTHESES}"
        if len(explanations) > MOST_HYPOTHESES
        else "",
        f"words after the first {MOST_WORDS}" if words else "",
    ]
    named = " and ".join(filter(None, parts))
    return f" Left out: {named}." if named else ""


def _text(words: str, most: int = MOST_CHARACTERS) -> str:
    """Words as text or attribute of HTML, cut where they are too long."""
    return escape(words if len(words) <= most else f"{words[: most - 1]}…")


def _encoded(html: str) -> bytes:
    """In UTF-8; file names may hold what that does not have."""
    return html.encode("utf-8", "replace")


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As CSP has it, of an element's text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
