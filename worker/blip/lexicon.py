"""The vocabularies of a mixed batch, and the order of its rows."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from torch import nn

from worker.blip.linear import Linear
from worker.blip.pack import Pack
from worker.blip.text import TextDecoder
from worker.blip.tokenizer import Tokenizer

T = TypeVar("T")


class Lexicon(NamedTuple):
    """A vocabulary and what the model knows of it; equal if it is the same one."""

    tokenizer: Tokenizer
    words: nn.Embedding
    head: Linear

    @classmethod
    def of(cls, pack: Pack | None, tokenizer: Tokenizer, decoder: TextDecoder) -> "Lexicon":
        """A pack's; for rows without one, that of the checkpoint: its tokenizer and decoder."""
        if pack is not None and pack.decoder is not None:
            tokenizer, decoder = pack.tokenizer, pack.decoder
        return cls(tokenizer, decoder.text.words, decoder.vocabulary)


def in_order(packs: Sequence[Pack | None], lexicons: Sequence[Lexicon]) -> list[int]:
    """The rows, those of one lexicon together, and among them those of one pack."""
    first: dict[object, int] = {}
    for key in (*lexicons, *packs):
        first.setdefault(key, len(first))
    return sorted(range(len(packs)), key=lambda row: (first[lexicons[row]], first[packs[row]]))


def runs(values: Sequence[T]) -> list[tuple[T, slice]]:
    """Equal values that follow each other, and where they do."""
    found, start = [], 0
    for value, equal in groupby(values):
        stop = start + len(list(equal))
        found.append((value, slice(start, stop)))
        start = stop
    return found
