"""Banned words: an automaton over word pieces, so that no other spelling lets a word through.

WordPiece can spell "cat" as cat, as ca + ##t, as c + ##at. Each row has one automaton whose states
are places in its banned phrases (how many characters of one have been spelt); its edges are the
pieces that may stand there. A token whose edge would complete a phrase is barred. What merely
begins as a banned word does goes with it where its pieces spell the word first (catfish as
cat + ##fish); one that contains it further on (bobcat) does not, unless punctuation comes between
(d + ##' + ##un) or words are written without spaces.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worker.blip.options import CaptionOptions
from worker.blip.spelling import INSIDE, JOINED, unspaced
from worker.blip.tokenizer import Tokenizer
from worker.blip.vocabulary import Vocabulary

_START = 0  # always alive: a phrase may begin with any token
_OPEN = 1  # alive where a word may begin without a space: at the beginning, after punctuation


class Edge(NamedTuple):
    """From one state to another by a token; `end` is None where the token completes a phrase."""

    start: int
    token_id: int
    end: int | None


def edges_of(phrases: Sequence[str | Sequence[int]], vocabulary: Vocabulary) -> list[Edge]:
    """The automaton of one row; its states are numbered from _START on."""
    edges: list[Edge] = []
    states = 2
    for phrase in phrases:
        spelt = list(_spelt(phrase, vocabulary))
        length = max((end for _, _, end in spelt), default=0)
        joined = _START if _unspaced(phrase) else _OPEN
        for start, token_id, end in spelt:
            begin = {0: _START, INSIDE: _START, JOINED: joined}.get(start, states + start - 1)
            edges.append(Edge(begin, token_id, None if end == length else states + end - 1))
        states += length
    return edges


def _spelt(phrase: str | Sequence[int], vocabulary: Vocabulary) -> Iterator[tuple[int, int, int]]:
    """(characters before, token id, characters after) of each piece; ids count as characters."""
    if not isinstance(phrase, str):
        yield from ((place, token_id, place + 1) for place, token_id in enumerate(phrase))
        return
    before = 0
    words = vocabulary.words(phrase)
    for word in words:
        for start, token_id, end in vocabulary.spellings(word):
            if start >= 0:
                yield before + start, token_id, before + end
            elif not before:  # further on in a phrase a space does come before a word
                yield start, token_id, end
        before += len(word)


def _unspaced(phrase: str | Sequence[int]) -> bool:
    return isinstance(phrase, str) and unspaced(phrase.strip()[:1])


class BannedWords:
    """Where B rows stand in their automata, `width` sequences each.

    Prompts are read first: a prompt's last piece and the first generated one may be one word.
    """

    def __init__(
        self,
        rows: Sequence[CaptionOptions],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        self.nothing = tokenizer.vocab_size
        per_row = [edges_of(row.bad_words, tokenizer.vocabulary) for row in rows]
        count = max(map(len, per_row))
        ends = [edge.end for edges in per_row for edge in edges if edge.end is not None]
        self.dead = 1 + max(ends, default=_OPEN)  # the state that nobody reads
        padding = Edge(self.dead, self.nothing, self.dead)
        padded = [[*edges, *[padding] * (count - len(edges))] for edges in per_row]

        def column(values: list[list[int]]) -> Tensor:
            return torch.tensor(values, device=device)[:, None]  # [B, 1, edges]

        self.starts = column([[edge.start for edge in edges] for edges in padded])
        self.token_ids = column([[edge.token_id for edge in edges] for edges in padded])
        self.ends = column(
            [[self.dead if e.end is None else e.end for e in edges] for edges in padded]
        )
        self.completes = column([[int(edge.end is None) for edge in e] for e in padded]).bool()
        self.silent = torch.from_numpy(tokenizer.vocabulary.silent).to(device)
        self.opens = torch.from_numpy(tokenizer.vocabulary.opens).to(device)
        self.alive = self._begun(prompts, per_row, tokenizer.vocabulary).to(device)

    def _begun(
        self,
        prompts: Sequence[Sequence[int]],
        per_row: Sequence[Sequence[Edge]],
        vocabulary: Vocabulary,
    ) -> Tensor:
        """bool [B, 1, states]: the states that the prompts lead to."""
        alive = torch.zeros((len(prompts), 1, self.dead + 1), dtype=torch.bool)
        for row, (prompt, edges) in enumerate(zip(prompts, per_row, strict=True)):
            states = {_START, _OPEN}
            for token_id in prompt:
                if not vocabulary.silent[token_id]:
                    states = {_START, *([_OPEN] if vocabulary.opens[token_id] else [])} | {
                        edge.end
                        for edge in edges
                        if edge.end is not None
                        and edge.token_id == token_id
                        and edge.start in states
                    }
            alive[row, 0, list(states)] = True
        return alive

    def completing(self, width: int) -> Tensor:
        """int64 [B, width, edges]: the tokens that would complete a phrase, V where none."""
        alive = self.alive.expand(-1, width, -1)  # before the first token all sequences are equal
        reached = alive.gather(-1, self.starts.expand(-1, width, -1))
        return torch.where(reached & self.completes, self.token_ids, self.nothing)

    def advance(self, token_ids: Tensor, parents: Tensor | None) -> None:
        """See Processors.advance; token_ids and parents: int64 [B, n]."""
        width = token_ids.shape[1]
        alive = self.alive.expand(-1, width, -1)
        if parents is not None:
            alive = alive.take_along_dim(parents[..., None], dim=1)
        taken = alive.gather(-1, self.starts.expand(-1, width, -1))
        taken = taken & (self.token_ids == token_ids[..., None])
        reached = torch.where(taken, self.ends, self.dead)
        moved = torch.zeros_like(alive).scatter(-1, reached, True)
        moved[..., _START] = True
        moved[..., _OPEN] = self.opens[token_ids]
        moved[..., self.dead] = False
        self.alive = torch.where(self.silent[token_ids][..., None], alive, moved)
