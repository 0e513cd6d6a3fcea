"""How a tokenizer writes words in pieces.

Two ways are read. WordPiece (BERT, and ours for languages) marks a piece that continues a word:
cat, or ca ##t. SentencePiece (XLM-R) marks one that a space comes before: ▁cat, or ▁ca t; its
pieces may also hold the end of one word and the beginning of the next ('un of "d'un"). Where words
are written without spaces, any piece begins one.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from worker.blip.errors import CheckpointError

JOINED = -1
"""Where a piece stands that begins a word without a space before it: "un" in "d'un"."""
INSIDE = -2
"""Where a piece stands inside which the word begins: "'un"."""
_SPACE = "▁"
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts without spaces between words, as the names of their characters begin."""


class Compound(NamedTuple):
    """A piece with a boundary of words inside, and its text from a boundary on."""

    token_id: int
    spaced: bool  # a space comes before the piece
    inside: bool  # the boundary is not its beginning
    rest: str


class Spelling:
    """Which of a tokenizer's pieces may stand where in a word.

    id_of: every piece that a text shows.

    Raises:
        CheckpointError: words are written in another way.
    """

    def __init__(self, model: Any, id_of: Mapping[str, int]) -> None:
        self._id_of = id_of
        self._continues: str = getattr(model, "continuing_subword_prefix", None) or ""
        self._space = "" if self._continues else _SPACE
        if self._space and not any(piece.startswith(_SPACE) for piece in id_of):
            raise CheckpointError(
                "the tokenizer marks neither pieces that continue a word, as WordPiece does, nor "
                "those that a space comes before, as SentencePiece does"
            )

    def bare(self, piece: str) -> tuple[str, bool]:
        """A piece without its mark, and whether a space comes before it."""
        if self._continues and piece.startswith(self._continues):
            return piece[len(self._continues) :], False
        return piece.removeprefix(self._space), bool(self._continues) or piece.startswith(_SPACE)

    def continues(self, piece: str) -> bool:
        """Whether a piece is a later one of a word."""
        text, spaced = self.bare(piece)
        return bool(text) and not spaced and not unspaced(text[0])

    def of(self, word: str) -> Iterator[tuple[int, int, int]]:
        """(start, token id, end) of every piece that may stand at word[start:end].

        `start` is JOINED or INSIDE for those that begin the word without a space before it. A word
        begins with "▁" where the tokenizer marks spaces; that is its first character.
        """
        begin = int(bool(self._space) and word.startswith(self._space))
        for start in range(len(word)):
            for end in range(start + 1, len(word) + 1):
                text = word[start:end]
                if start == 0 and (self._continues or begin):
                    yield from self._known(0, text, end)
                if start == begin:
                    yield from self._known(JOINED, self._continues + text, end)
                if start:
                    yield from self._known(start, self._continues + text, end)
            yield from self._across(word, start, begin)

    def _known(self, start: int, piece: str, end: int) -> Iterator[tuple[int, int, int]]:
        token_id = self._id_of.get(piece)
        if token_id is not None:
            yield start, token_id, end

    def _across(self, word: str, start: int, begin: int) -> Iterator[tuple[int, int, int]]:
        """Those of a piece that also holds what comes before the word, or after it."""
        left = word[start:]
        for token_id, spaced, inside, rest in self._compounds.get(left[0], ()):
            whole = rest.startswith(left) and (rest == left or boundary(rest, len(left)))
            if whole and not inside and rest != left and start and not spaced:
                yield start, token_id, len(word)
            if start == begin and inside and (whole or left.startswith(rest)):
                yield INSIDE, token_id, len(word) if whole else start + len(rest)
            elif start == begin and whole and rest != left:
                yield 0 if spaced else JOINED, token_id, len(word)

    @cached_property
    def _compounds(self) -> Mapping[str, list[Compound]]:
        """Pieces with a boundary of words inside, by the first character from a boundary on."""
        found: dict[str, list[Compound]] = defaultdict(list)
        for piece, token_id in self._id_of.items():
            text, spaced = self.bare(piece)
            inner = [place for place in range(1, len(text)) if boundary(text, place)]
            for place in [0, *inner] if inner else []:
                rest = text[place:]
                found[rest[0]].append(Compound(token_id, spaced, place > 0, rest))
        return found


def boundary(text: str, place: int) -> bool:
    """Whether text[place - 1] and text[place] belong to different words, or to none."""
    return ends_word(text[place - 1]) or ends_word(text[place])


def ends_word(char: str) -> bool:
    """Whether what follows a character is another word, though no space comes between."""
    letter = char.isalnum() or unicodedata.category(char).startswith("M")
    return not letter or unspaced(char)


def unspaced(char: str) -> bool:
    """Whether a character is a letter of a script that is written without spaces between words."""
    return char.isalpha() and unicodedata.name(char, "").startswith(_UNSPACED)
