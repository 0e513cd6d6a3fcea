"""Rows of several packs, and of none, in one pass of the decoder.

The layers run on all rows together. Their weights are the checkpoint's, in one product for every
row. LoRA stands beside them as two batched products, each with factors for the rows of each pack:
as many however many packs there are, and no more arithmetic than for one. (One product with the
factors of all packs side by side, masked, did three times the arithmetic for three.) Vocabularies
differ in size, so rows of each have words and a head of their own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worker.blip.lexicon import Lexicon, runs
from worker.blip.lora import GroupedLinear, Groups, linear_at, stacked, with_modules
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
    groups = Groups([rows.stop - rows.start for _, rows in by_pack], base.text.words.weight.device)
    paths = dict.fromkeys(path for pack, _ in by_pack if pack is not None for path in pack.lora)
    for path in paths:
        if not path.startswith(_OF_IMAGES):
            own = [None if pack is None else pack.lora.get(path) for pack, _ in by_pack]
            modules[path] = GroupedLinear(linear_at(base, path), stacked(own), groups)
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
