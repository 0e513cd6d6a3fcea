"""Rows of several packs, and of none, in one pass of the decoder.

The layers run on all rows together. Their weights are the checkpoint's for every row; LoRA stands
beside them as the factors of all packs, one after the other, and a mask that leaves each row its
own pack's ranks: two products more for each layer, however many packs there are. Vocabularies
differ in size, so rows of each have words, a head and a search of their own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worker.blip.lexicon import Lexicon, runs
from worker.blip.lora import AdaptedLinear, beside, linear_at, with_modules
from worker.blip.pack import Pack
from worker.blip.text import TextDecoder

_OF_IMAGES = "text.cross_key_values."


def mixed_decoder(
    base: TextDecoder, packs: Sequence[Pack | None], lexicons: Sequence[Lexicon]
) -> TextDecoder:
    """A decoder for a batch of these rows, in this order. Its `logits` are what heads read.

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
            masks[ranks] = _mask([rows for _, rows in by_pack], ranks, together.down)
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


class _Words(nn.Module):
    """Word embeddings of rows by their lexicons: int64 [B, T] to [B, T, hidden]."""

    def __init__(self, parts: Sequence[tuple[nn.Embedding, slice]]) -> None:
        super().__init__()
        self._parts = parts

    def forward(self, token_ids: Tensor) -> Tensor:
        return torch.cat([words(token_ids[rows]) for words, rows in self._parts])


def _mask(parts: Sequence[slice], ranks: Sequence[int], like: Tensor) -> Tensor:
    """[B, 1, R]: 1 where a rank is of a row's own pack; ranks follow each other as the parts do."""
    mask = like.new_zeros(parts[-1].stop, 1, sum(ranks))
    start = 0
    for rows, rank in zip(parts, ranks, strict=True):
        mask[rows, :, start : start + rank] = 1
        start += rank
    return mask
