"""The pieces of a tokenizer: what each adds to a text, and which ones spell a word."""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.blip.spelling import Spelling, ends_word

_ANCHOR = "a"  # any word: what follows one is not at the beginning
_MAX_AUTOMATA = 64


class Vocabulary:
    """Token ids 0..size-1 as text. Ids that a text does not show (special ones) are silent.

    Raises:
        CheckpointError: the tokenizer writes words in another way.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.size = size
        self._backend = tokenizer.backend_tokenizer
        # Those of the decoder: [ENC] is among them, but not among all_special_ids.
        added = self._backend.get_added_tokens_decoder().items()
        special = {token_id for token_id, token in added if token.special}
        self._id_of = {
            piece: token_id
            for piece, token_id in tokenizer.get_vocab().items()
            if token_id < size and token_id not in special
        }
        self._spelling = Spelling(self._backend.model, self._id_of)
        # A cache per vocabulary, small: an automaton of 64 characters takes 2 MB.
        self.automaton = lru_cache(maxsize=_MAX_AUTOMATA)(self._automaton)

    @cached_property
    def pieces(self) -> list[str]:
        """The vocabulary's entry of each id, "" for one that is silent."""
        pieces = [""] * self.size
        for piece, token_id in self._id_of.items():
            pieces[token_id] = piece
        return pieces

    @cached_property
    def silent(self) -> NDArray[np.bool_]:
        """bool [size]: ids that a text does not show."""
        return np.array([not piece for piece in self.pieces])

    @cached_property
    def texts(self) -> tuple[list[str], list[str]]:
        """What each id adds to a text, (at its beginning, later): the later ones with their space.

        Taken from the tokenizer's own decoder, so that " ." is "." here as it is there.
        """
        decode = self._backend.decoder.decode
        first = [decode([piece]) if piece else "" for piece in self.pieces]
        later = [decode([_ANCHOR, p])[len(_ANCHOR) :] if p else "" for p in self.pieces]
        return first, later

    @cached_property
    def opens(self) -> NDArray[np.bool_]:
        """bool [size]: ids after which a piece without a space begins a word, as after "d'"."""
        return np.array([bool(piece) and ends_word(piece[-1]) for piece in self.pieces])

    def continues(self, token_id: int) -> bool:
        """Whether the id is a later piece of a word."""
        return self._spelling.continues(self.pieces[token_id])

    def normalised(self, text: str) -> str:
        """The text as the tokenizer reads it: in lower case and without accents, as published."""
        normalizer = self._backend.normalizer
        return str(normalizer.normalize_str(text)) if normalizer else text

    def shown(self, text: str) -> str:
        """A part of a text as `texts` have it: as it is read, with single spaces.

        BERT's normaliser puts spaces round every Chinese character. Where the text had none, at its
        ends, there are none.
        """
        read = " ".join(self.normalised(text).split())
        if not read:
            return " " if text.isspace() else ""
        return " " * text[0].isspace() + read + " " * text[-1].isspace()

    def words(self, text: str) -> list[str]:
        """The words of a text before they are split into pieces, "▁" before each if it is there."""
        split = self._backend.pre_tokenizer.pre_tokenize_str(self.normalised(text))
        return [word for word, _ in split]

    def spellings(self, word: str) -> Iterator[tuple[int, int, int]]:
        """(start, token id, end) of every piece that may stand at word[start:end]: Spelling.of."""
        return self._spelling.of(word)

    def _automaton(self, pattern: str) -> NDArray[np.uint8]:
        """Knuth-Morris-Pratt over token ids: uint8 [m + 2, size] for a pattern of m characters.

        Row k < m: the state after each id when the text so far ends in the pattern's first k
        characters. State m: the pattern has occurred, for good. Row m + 1: at the text's beginning.
        """
        rows = np.tile(np.arange(len(pattern) + 1)[:, None], (1, self.size))
        first, later = self._codes
        ends = [_run(pattern, rows, later), _run(pattern, rows[:1], first)]
        empty = [not text for text in self.texts[0]]  # silent ones, and a space at the beginning
        ends[1][0, empty] = len(pattern) + 1
        return np.concatenate(ends).astype(np.uint8)

    @cached_property
    def _codes(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        first, later = (_codepoints(texts) for texts in self.texts)
        return first, later


def _codepoints(texts: list[str]) -> NDArray[np.int32]:
    """int32 [texts, longest], -1 after a text's end."""
    codes = np.full((len(texts), max(map(len, texts))), -1, dtype=np.int32)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = [ord(char) for char in text]
    return codes


def _run(pattern: str, states: NDArray[Any], codes: NDArray[np.int32]) -> NDArray[np.uint8]:
    """States [rows, texts] after reading each text, by codes [texts, longest], from each state."""
    alphabet = sorted(set(pattern))
    # Of each state by each letter, the last of them any other: nothing of the pattern, unless it
    # has occurred. Small numbers, for there are millions.
    steps = [
        [_longest(pattern, pattern[:k] + char) for char in alphabet] for k in range(len(pattern))
    ]
    step = np.array([[*row, 0] for row in steps] + [[len(pattern)] * (len(alphabet) + 1)], np.uint8)
    lengths = (codes >= 0).sum(axis=1)
    order = np.argsort(-lengths, kind="stable")  # the longest first: those that go on are a slice
    known = np.array([ord(char) for char in alphabet])
    found = np.array(states[:, order], np.uint8)
    for place in range(codes.shape[1]):
        column = codes[order[: np.count_nonzero(lengths > place)], place]
        letter = np.searchsorted(known, column).clip(max=len(known) - 1)
        letter[known[letter] != column] = len(known)
        going = found[:, : len(column)]
        going[:] = np.take(step, going.astype(np.int32) * step.shape[1] + letter.astype(np.int32))
    found[:, order] = found.copy()
    return found


def _longest(pattern: str, text: str) -> int:
    """How many first characters of the pattern the text ends in."""
    return max(k for k in range(len(pattern) + 1) if text.endswith(pattern[:k]))
