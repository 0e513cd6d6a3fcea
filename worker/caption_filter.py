"""Which captions a filter refuses, and why: pure (CapFilt, Li et al. 2022)."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from producer.filtering import CaptionFilter, Reason
from worker.blip.spelling import unspaced


class Weight(NamedTuple):
    """How well a caption matches its image. calibrated is None where the model is not."""

    itm_probability: float
    calibrated: float | None = None


def reasons(
    text: str, weight: Weight, rules: CaptionFilter, threshold: float | None = None
) -> tuple[Reason, ...]:
    """Why a caption is refused; nothing where it is not.

    threshold: of the calibrated probability, where the rules leave it to the calibration.
    """
    asked = rules.min_calibrated_probability
    least = threshold if asked == "threshold" else asked
    found: list[Reason] = []
    if _below(weight.itm_probability, rules.min_itm_probability):
        found.append("itm_probability")
    if weight.calibrated is not None and _below(weight.calibrated, least):
        found.append("calibrated_probability")
    if any(says(text, phrase) for phrase in rules.banned_words):
        found.append("banned_word")
    if rules.refuse_repetition and repeats(text):
        found.append("repetition")
    return tuple(found)


def says(text: str, phrase: str) -> bool:
    """Whether a text has a word or phrase, whatever the case: whole words, but for scripts that
    put no spaces between them."""
    return _pattern(phrase).search(_folded(text)) is not None


def repeats(text: str) -> bool:
    """Whether a text says the same words twice in a row, or a single word three times.

    Of scripts without spaces, whose words have about two characters, three characters count, and
    two of them three times: words of one or two may well come twice (一个一个).

    >>> repeats("a cat and a cat and a cat"), repeats("a very very small red star")
    (True, False)
    """
    folded = _folded(text)
    several = 3 if any(map(unspaced, folded)) else 2
    words = "".join(f" {c} " if unspaced(c) else c for c in folded).split()
    return any(_in_a_row(words, n, 3) for n in (1, 2)) or any(
        _in_a_row(words, n, 2) for n in range(several, len(words))
    )


def _in_a_row(words: Sequence[str], size: int, times: int) -> bool:
    return any(
        all(words[i : i + size] == words[i + k * size : i + (k + 1) * size] for k in range(times))
        for i in range(len(words) - size * times + 1)
    )


def _below(value: float, least: float | None) -> bool:
    return least is not None and value < least


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@lru_cache(maxsize=4_096)
def _pattern(phrase: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in _folded(phrase).split())
    spaced = not any(unspaced(c) or unicodedata.east_asian_width(c) in "WF" for c in phrase)
    return re.compile(rf"(?<!\w){words}(?!\w)" if spaced else words)
