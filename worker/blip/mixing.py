"""Rows of several packs, and of none, in one pass of the decoder.

The layers run on all rows together. Their weights are the checkpoint's for every row; LoRA stands
beside them as the factors of all packs, one after the other, and a mask that leaves each row its
own pack's ranks: two products more for each layer, however many packs there are. Vocabularies
differ in size, so rows of each have words, a head and a search of their own.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from worker.blip.linear import Linear
from worker.blip.lora import AdaptedLinear, beside, linear_at, with_modules
from worker.blip.pack import Pack
from worker.blip.search import Search
from worker.blip.text import TextDecoder
from worker.blip.tokenizer import Tokenizer

T = TypeVar("T")
_OF_IMAGES = "text.cross_key_values."


class Lexicon(NamedTuple):
    """A vocabulary and what the model knows of it; equal if it is the same one."""

    tokenizer: Tokenizer
    words: nn.Embedding
    head: Linear

    @classmethod
    def of(cls, tokenizer: Tokenizer, decoder: TextDecoder) -> "Lexicon":
        """A decoder's."""
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


def mixed_decoder(
    base: TextDecoder, packs: Sequence[Pack | None], lexicons: Sequence[Lexicon]
) -> TextDecoder:
    """A decoder for a batch of these rows, in this order. Its `logits` are SideBySide's to take.

    packs, lexicons: of each row, as `in_order` puts them.
    """
    by_pack = runs(packs)
    modules: dict[str, nn.Module] = {
        "text.words": _Words([(one.words, rows) for one, rows in runs(lexicons)]),
        "vocabulary": nn.Identity(),
    }
    masks: dict[tuple[int, ...], Tensor] = {}
    paths = dict.fromkeys(path for pack, _ in by_pack if pack is not None for path in pack.lora)
    for path in paths:
        if path.startswith(_OF_IMAGES):
            continue
        own = [None if pack is None else pack.lora.get(path) for pack, _ in by_pack]
        ranks = tuple(0 if one is None else one.rank for one in own)
        together = beside([one for one in own if one is not None])
        if ranks not in masks:
            device = together.down.device
            masks[ranks] = _others([rows for _, rows in by_pack], ranks, device)
        modules[path] = AdaptedLinear(linear_at(base, path), together, masks[ranks])
    return with_modules(base, modules)


def project_images(base: TextDecoder, packs: Sequence[Pack | None], embeddings: Tensor) -> Tensor:
    """TextModel.project_images of each row by its pack."""
    images, tokens, _ = embeddings.shape
    cross = embeddings.new_empty(base.text.cache_shape(images, tokens))
    for pack, rows in runs(packs):
        decoder = (pack and pack.decoder) or base
        decoder.text.project_images(embeddings[rows], cross[:, :, rows])
    return cross


class SideBySide:
    """Searches of rows that follow each other, each with its own lexicon, as one: see Search.

    `advance` takes what the heads read, [B, width, hidden]. A search whose rows have all the tokens
    that they may have is not asked again.
    """

    def __init__(self, parts: Sequence[tuple[Search, Lexicon, slice]]) -> None:
        self._parts = parts
        self.width = parts[0][0].width
        self.steps = max(search.steps for search, _, _ in parts)
        self._latest: list[tuple[Tensor, Tensor]] = [()] * len(parts)  # type: ignore[list-item]

    @property
    def done(self) -> Tensor:
        """bool [B]."""
        return torch.cat([search.done for search, _, _ in self._parts])

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See Search."""
        for at, (search, lexicon, rows) in enumerate(self._parts):
            if step < search.steps:
                self._latest[at] = search.advance(step, lexicon.head(logits[rows]))
        token_ids, parents = zip(*self._latest, strict=True)
        return torch.cat(token_ids), torch.cat(parents)


class _Words(nn.Module):
    """Word embeddings of rows by their lexicons: int64 [B, T] to [B, T, hidden]."""

    def __init__(self, parts: Sequence[tuple[nn.Embedding, slice]]) -> None:
        super().__init__()
        self._parts = parts

    def forward(self, token_ids: Tensor) -> Tensor:
        return torch.cat([words(token_ids[rows]) for words, rows in self._parts])


def _others(parts: Sequence[slice], ranks: Sequence[int], device: torch.device) -> Tensor:
    """bool [B, 1, R]: whether a rank is of another pack than a row's; ranks follow each other as
    the parts do."""
    others = torch.ones(parts[-1].stop, 1, sum(ranks), dtype=torch.bool, device=device)
    start = 0
    for rows, rank in zip(parts, ranks, strict=True):
        others[rows, :, start : start + rank] = False
        start += rank
    return others
