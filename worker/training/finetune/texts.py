"""Captions as token ids: rows of one array, as long as the longest of those that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.blip.tokenizer import Tokenizer

IGNORED = -100  # the label that torch's cross-entropy leaves out
UNKNOWN = ("[UNK]", "<unk>")
"""As BERT and SentencePiece have it."""


@dataclass(frozen=True)
class TokenRows:
    """ids: int64 [N, T], padded; lengths: int64 [N]. `cut` rows were longer, `unknown` is the share
    of tokens that the tokenizer has no word for."""

    ids: Tensor
    lengths: Tensor
    pad_id: int
    cut: int
    unknown: float

    def some(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(ids, labels) int64 [n, t]: pads are IGNORED in the labels."""
        lengths = self.lengths[rows]
        ids = self.ids[rows, : int(lengths.max())]
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        return ids, ids.masked_fill(~real, IGNORED)


def captions(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> TokenRows:
    """[DEC], the caption's tokens, [SEP]. One of more than `most` tokens ends without [SEP]: it is
    not taught to end there."""
    rows = [[*tokenizer.prompt(text), tokenizer.sep_id] for text in texts]
    return _padded(tokenizer, rows, most)


def texts_to_match(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> TokenRows:
    """[CLS], the text's tokens, [SEP], which stays where a text is cut."""
    rows = [tokenizer.text(text) for text in texts]
    kept = [row if len(row) <= most else [*row[: most - 1], tokenizer.sep_id] for row in rows]
    cut = sum(len(row) > most for row in rows)
    return _padded(tokenizer, kept, most, cut)


def _padded(
    tokenizer: Tokenizer, rows: list[list[int]], most: int, cut: int | None = None
) -> TokenRows:
    width = min(most, max(map(len, rows)))
    ids = torch.full((len(rows), width), tokenizer.pad_id)
    for number, row in enumerate(rows):
        ids[number, : len(row[:width])] = torch.tensor(row[:width])
    words = [token for row in rows[:2_000] for token in tokenizer.tokens(row[1:])]
    return TokenRows(
        ids,
        torch.tensor([min(len(row), width) for row in rows]),
        tokenizer.pad_id,
        sum(len(row) > most for row in rows) if cut is None else cut,
        sum(word in UNKNOWN for word in words) / max(1, len(words)),
    )
