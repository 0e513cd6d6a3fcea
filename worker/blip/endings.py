"""When a caption ends: [SEP], most tokens, a stop string, most characters; row by row, as tensors.

Stop strings are found by automata over token ids (vocabulary.py), so that a string that spans
several pieces, or begins inside one, is found on the device, at the token that completes it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.blip.options import CaptionOptions
from worker.blip.tokenizer import Tokenizer

_NO_LIMIT = 2**31


class Endings:
    """Tells which of `width` sequences of B rows end with the token they just got."""

    def __init__(
        self,
        rows: Sequence[CaptionOptions],
        width: int,
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        self.sep_id = tokenizer.sep_id
        self.max_new = torch.tensor([row.steps for row in rows], device=device)
        begun = [tokenizer.prefix_text(row.prefix) for row in rows]
        self.stops = (
            _StopStrings(rows, begun, width, tokenizer, device)
            if any(row.stop_strings for row in rows)
            else None
        )
        self.chars = (
            _Characters(rows, begun, width, tokenizer, device)
            if any(row.max_chars for row in rows)
            else None
        )

    def advance(self, step: int, token_ids: Tensor, parents: Tensor | None) -> Tensor:
        """bool [B, m]: whether sequence i, which is parents[:, i] (None: i) and a token, ends."""
        ends = (token_ids == self.sep_id) | (step + 1 >= self.max_new)[:, None]
        if self.stops is not None:
            ends = ends | self.stops.advance(token_ids, parents)
        if self.chars is not None:
            ends = ends | self.chars.advance(token_ids, parents)
        return ends

    def keep(self, kept: Tensor) -> None:
        """Go on with the sequences `kept`, int64 [B, n], of those given last."""
        for part in (self.stops, self.chars):
            if part is not None:
                part.state = part.state.take_along_dim(
                    kept.reshape(*kept.shape, *(1,) * (part.state.dim() - 2)), dim=1
                )


class _StopStrings:
    """The states of each sequence's automata: int64 [B, m, strings of a row]."""

    def __init__(
        self,
        rows: Sequence[CaptionOptions],
        begun: Sequence[str],
        width: int,
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        vocabulary = tokenizer.vocabulary
        patterns = [tokenizer.stop_strings(row.stop_strings) for row in rows]
        known = sorted({pattern for row in patterns for pattern in row})
        longest = max(map(len, known), default=0)
        most = max(1, *map(len, patterns))
        # [strings + 1, states, V]; the last table is of a string that never occurs.
        tables = np.zeros((len(known) + 1, longest + 2, vocabulary.size), dtype=np.uint8)
        for table, pattern in zip(tables, known, strict=False):
            table[: len(pattern) + 2] = vocabulary.automaton(pattern)
        self.tables = torch.from_numpy(tables).to(device)
        which = [
            [known.index(pattern) for pattern in row] + [len(known)] * (most - len(row))
            for row in patterns
        ]
        self.which = torch.tensor(which, device=device)[:, None]  # [B, 1, strings of a row]
        lengths = torch.tensor([*map(len, known), _NO_LIMIT], device=device)
        self.lengths = lengths[self.which]
        # A prefix is no place to find a stop string, but what follows it begins with a space.
        fresh = torch.tensor([not text for text in begun], device=device)[:, None, None]
        state = torch.where(fresh & (self.lengths < _NO_LIMIT), self.lengths + 1, 0)
        self.state = state.expand(-1, width, -1)

    def advance(self, token_ids: Tensor, parents: Tensor | None) -> Tensor:
        state = self.state
        if parents is not None:
            state = state.take_along_dim(parents[..., None], dim=1)
        self.state = self.tables[self.which, state, token_ids[..., None]].long()
        return (self.state == self.lengths).any(dim=-1)


class _Characters:
    """The length of each sequence's text, int64 [B, m]."""

    def __init__(
        self,
        rows: Sequence[CaptionOptions],
        begun: Sequence[str],
        width: int,
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        lengths = [list(map(len, texts)) for texts in tokenizer.vocabulary.texts]
        self.lengths = torch.tensor(lengths, device=device)  # [first or later, V]
        limits = [row.max_chars or _NO_LIMIT for row in rows]
        self.limits = torch.tensor(limits, device=device)[:, None]
        state = torch.tensor([len(text) for text in begun], device=device)[:, None]
        self.state = state.expand(-1, width)

    def advance(self, token_ids: Tensor, parents: Tensor | None) -> Tensor:
        chars = self.state
        if parents is not None:
            chars = chars.take_along_dim(parents, dim=1)
        self.state = chars + self.lengths[(chars > 0).long(), token_ids]
        return self.state > self.limits
