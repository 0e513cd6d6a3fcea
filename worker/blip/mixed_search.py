"""The search of a mixed batch, whose rows have several vocabularies.

Each part of the batch reads its logits from its own head. Rows of one vocabulary may be searched by
themselves, which is always right; a short step then takes several times as many operations. So one
search does for all where nothing but a vocabulary's size tells the parts apart: what a smaller one
lacks of the largest can never be chosen.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from worker.blip.lexicon import Lexicon, runs
from worker.blip.options import CaptionOptions
from worker.blip.search import Hypotheses, RowSearch, Search, search_for


class MixedSearch(Search, Protocol):
    """`advance` takes what the heads read, [B, width, hidden], in place of logits."""

    def hypotheses(self) -> list[Hypotheses]:
        """What was found, part by part: `runs` of the lexicons."""
        ...


def mixed_search(
    rows: Sequence[CaptionOptions],
    prompts: Sequence[Sequence[int]],
    lexicons: Sequence[Lexicon],
    device: torch.device,
) -> MixedSearch:
    """The search for these rows; those of one lexicon follow each other. See search_for."""
    parts = runs(lexicons)
    largest = max(lexicons, key=lambda one: one.tokenizer.vocab_size)
    if alike(rows, lexicons):
        return Padded(search_for(rows, prompts, largest.tokenizer, device), parts)
    return SideBySide(
        [search_for(rows[at], prompts[at], one.tokenizer, device) for one, at in parts], parts
    )


def alike(rows: Sequence[CaptionOptions], lexicons: Sequence[Lexicon]) -> bool:
    """Whether the rows' searches differ in nothing but the size of their vocabularies.

    They do where [SEP] is another token, tokens are read as text, or all of them may be barred.
    """
    ends = {lexicon.tokenizer.sep_id for lexicon in lexicons}
    reading = ("bad_words", "stop_strings", "max_chars", "prefix", "no_repeat_ngram_size")
    return len(ends) == 1 and not any(getattr(row, name) for row in rows for name in reading)


class Padded:
    """One search for all parts, over the largest vocabulary."""

    def __init__(self, search: RowSearch, parts: Sequence[tuple[Lexicon, slice]]) -> None:
        self._search, self._parts = search, parts
        self.width, self.steps = search.width, search.steps
        self._size = max(one.tokenizer.vocab_size for one, _ in parts)

    @property
    def done(self) -> Tensor:
        """bool [B]."""
        return self._search.done

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See Search."""
        padded = logits.new_full((*logits.shape[:2], self._size), -torch.inf)
        for one, rows in self._parts:
            padded[rows, :, : one.tokenizer.vocab_size] = one.head(logits[rows])
        return self._search.advance(step, padded)

    def hypotheses(self) -> list[Hypotheses]:
        """See MixedSearch."""
        found = vars(self._search.hypotheses())
        return [
            Hypotheses(**{name: values[rows] for name, values in found.items()})
            for _, rows in self._parts
        ]


class SideBySide:
    """A search for each part; one whose rows have all the tokens they may have is asked no more."""

    def __init__(
        self, searches: Sequence[RowSearch], parts: Sequence[tuple[Lexicon, slice]]
    ) -> None:
        self._searches, self._parts = searches, parts
        self.width = searches[0].width
        self.steps = max(search.steps for search in searches)
        self._latest: list[tuple[Tensor, Tensor]] = []

    @property
    def done(self) -> Tensor:
        """bool [B]."""
        return torch.cat([search.done for search in self._searches])

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See Search."""
        self._latest = [
            search.advance(step, one.head(logits[rows]))
            if step < search.steps
            else self._latest[at]
            for at, (search, (one, rows)) in enumerate(
                zip(self._searches, self._parts, strict=True)
            )
        ]
        token_ids, parents = zip(*self._latest, strict=True)
        return torch.cat(token_ids), torch.cat(parents)

    def hypotheses(self) -> list[Hypotheses]:
        """See MixedSearch."""
        return [search.hypotheses() for search in self._searches]
