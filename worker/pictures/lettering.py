"""Words on pictures, in whatever script, with the fonts that there are."""

import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from worker.pictures.colours import NotInstalled

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

ABSENT = "□"
"""Stands for a letter that no font here has."""
_CUT = "…"
_MOST_CHARACTERS = 2_000


class Lettering:
    """Text of one size, in pixels of its em.

    In DejaVu Sans, which comes with matplotlib; text that has letters which this lacks, in the
    first font of the machine that has them all.

    Raises:
        NotInstalled: without matplotlib.
    """

    def __init__(self, size: int, bold: bool = False) -> None:
        self._size = size
        self._own = _own_font(bold)
        self.line = round(size * 1.4)
        """Pixels from a line to the next."""

    def lines(self, text: str, width: int, most: int) -> list[str]:
        """The text in at most so many lines of `width` pixels; what has no room ends with "…".

        Lines break at spaces, and inside words that are wider than a line, as those of scripts
        without spaces may be.
        """
        rest = _plain(text)
        lines: list[str] = []
        while rest and len(lines) < most:
            end = self._fits(rest, width)
            if end < len(rest):
                space = rest.rfind(" ", 0, end + 1)
                end = space if space > 0 else end
            lines.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        if rest and lines:
            last = lines[-1] + _CUT
            while len(last) > 1 and self._width(last) > width:
                last = last[:-2].rstrip() + _CUT
            lines[-1] = last
        return lines

    def put(
        self, on: "ImageDraw", place: tuple[float, float], text: str, ink: str, anchor: str
    ) -> None:
        """Draw one line at (x, y), which is its `anchor` as Pillow names these."""
        font, shown = self._font(_plain(text))
        on.text(place, shown, fill=ink, font=font, anchor=anchor)

    def _fits(self, text: str, width: int) -> int:
        """How many characters of it go on a line; at least one."""
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self._width(text[:middle]) <= width:
                low = middle
            else:
                high = middle - 1
        return low

    def _width(self, text: str) -> float:
        font, shown = self._font(text)
        return float(font.getlength(shown))

    def _font(self, text: str) -> "tuple[FreeTypeFont, str]":
        from PIL import ImageFont

        wanted = frozenset(map(ord, text))
        path = self._own if wanted <= _letters(self._own) else _font_with(wanted) or self._own
        has = _letters(path)
        shown = "".join(letter if ord(letter) in has else ABSENT for letter in text)
        return ImageFont.truetype(path, self._size), shown


def _plain(text: str) -> str:
    """Without control characters and such, in one line."""
    shown = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text[:_MOST_CHARACTERS])
    return " ".join("".join(shown).split())


def _own_font(bold: bool) -> str:
    try:
        from matplotlib import get_data_path
    except ModuleNotFoundError as exc:
        raise NotInstalled from exc
    return f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf"


@cache
def _letters(path: str) -> frozenset[int]:
    """The code points that a font file has."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # no font that FreeType reads
        return frozenset()


@lru_cache(maxsize=128)  # texts that are measured have ever new sets of letters
def _font_with(letters: frozenset[int]) -> str | None:
    """A font of this machine that has all these letters; the one that has a sign for each
    script in place of its letters is none."""
    from matplotlib.font_manager import fontManager

    paths = sorted({font.fname for font in fontManager.ttflist if "Last Resort" not in font.name})
    return next((path for path in paths if letters <= _letters(path)), None)
