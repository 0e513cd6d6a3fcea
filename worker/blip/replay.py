"""Texts read again by the text stack, all tokens at once, with the cross-attention written down.

Decoding keeps no attention maps: its kernels never have them. A hypothesis that is to be explained
is replayed instead, whatever found it: its tokens are given (teacher forcing), so one pass does for
a batch of them, and every position sees what it saw when they were generated.

The pass can be differentiated with respect to the cross-attention probabilities. Weights that are
blocked for oneDNN know no autograd: `_Product` brings the backward of a linear layer, for which its
weights are unblocked, one layer at a time.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from worker.blip.linear import Linear
from worker.blip.text import TextLayer, TextModel


@dataclass(frozen=True)
class Texts:
    """A rectangle of texts for one replay: int64 and bool [B, T], right-padded, B = images x texts.

    mask: bool, broadcast to [B, heads, T, T], who may look at whom; `causal` and `bidirectional`
    make it. The texts of one image follow each other.
    """

    token_ids: Tensor
    valid: Tensor
    mask: Tensor

    @classmethod
    def causal(cls, rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> "Texts":
        """As the caption decoder reads."""
        token_ids, valid = _padded(rows, pad_id, device)
        width = token_ids.shape[1]
        return cls(
            token_ids, valid, torch.ones(width, width, dtype=torch.bool, device=device).tril()
        )

    @classmethod
    def bidirectional(
        cls, rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
    ) -> "Texts":
        """As the matching encoder reads."""
        token_ids, valid = _padded(rows, pad_id, device)
        return cls(token_ids, valid, valid[:, None, None])


@dataclass(frozen=True)
class Replayed:
    """What a replay saw.

    hidden: [B, T, hidden], the last layer's. maps: of each layer that was kept, the cross-attention
    probabilities [N, heads, texts * T, S]; they sum to 1 over the S tokens of the image, the class
    token first. Where gradients were asked for, `hidden` depends on them.
    """

    hidden: Tensor
    maps: dict[int, Tensor]

    def per_text(self, layer: int) -> Tensor:
        """The maps of a layer as [B, heads, T, S]."""
        return split(self.maps[layer], len(self.hidden))


def split(maps: Tensor, texts: int) -> Tensor:
    """[N, heads, texts of an image * T, S] as [N * texts of an image, heads, T, S]."""
    images, heads, _, tokens = maps.shape
    by_text = maps.view(images, heads, texts // images, -1, tokens)
    return by_text.transpose(1, 2).reshape(texts, heads, -1, tokens)


def replay(
    text: TextModel,
    texts: Texts,
    cross: Tensor,
    cross_mask: Tensor | None,
    layers: Collection[int],
    gradients: bool = False,
) -> Replayed:
    """Read texts before images, keeping the cross-attention of `layers`.

    cross: TextModel.project_images of N images. cross_mask: bool [N, 1, 1, S] or None. gradients:
    the maps, and all that follows from them, can be differentiated; call it outside inference mode.
    """
    width = texts.token_ids.shape[1]
    positions = torch.arange(width, device=texts.token_ids.device)
    maps: dict[int, Tensor] = {}
    with torch.set_grad_enabled(gradients):
        hidden: Tensor = text.embedding_norm(
            text.words(texts.token_ids) + text.positions(positions)
        )
        for index, layer in enumerate(cast("Iterable[TextLayer]", text.layers)):
            hidden = _attend_self(layer, hidden, texts.mask)
            probabilities = _look(layer, hidden, cross[index, 0], cross_mask)
            if index in layers:
                if gradients and not probabilities.requires_grad:
                    probabilities.requires_grad_()
                maps[index] = probabilities
            seen = torch.matmul(probabilities.to(hidden.dtype), cross[index, 1])
            seen = seen.transpose(1, 2).flatten(2).view(hidden.shape)
            hidden = layer.cross_norm(product(layer.cross_attention, seen) + hidden)
            inner = functional.gelu(product(layer.up, hidden))
            hidden = layer.output_norm(product(layer.down, inner) + hidden)
    return Replayed(hidden, maps)


def product(layer: Linear, hidden: Tensor) -> Tensor:
    """[..., in] to [..., out], as `layer(hidden)`, and differentiable in `hidden`."""
    found: Tensor = _Product.apply(hidden, layer)  # type: ignore[no-untyped-call]
    return found


def _attend_self(layer: TextLayer, hidden: Tensor, mask: Tensor) -> Tensor:
    batch, tokens, width = hidden.shape
    qkv = product(layer.qkv, hidden).view(batch, tokens, 3, layer.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    seen = seen.transpose(1, 2).reshape(batch, tokens, width)
    attended: Tensor = layer.attention_norm(product(layer.attention, seen) + hidden)
    return attended


def _look(layer: TextLayer, hidden: Tensor, key: Tensor, cross_mask: Tensor | None) -> Tensor:
    """float32 [N, heads, texts * T, S]."""
    images, heads, _, size = key.shape
    query = product(layer.cross_query, hidden).view(images, -1, heads, size).transpose(1, 2)
    scores = torch.matmul(query * size**-0.5, key.transpose(-1, -2)).float()
    if cross_mask is not None:
        scores = scores.masked_fill(~cross_mask, -torch.inf)
    return scores.softmax(dim=-1)


class _Product(torch.autograd.Function):
    """A linear layer whose weights are constants, in whatever form it keeps them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: Linear) -> Tensor:
        ctx.layer = layer
        found: Tensor = layer(hidden)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        [gradient] = gradients
        return torch.matmul(gradient, ctx.layer.plain_weight().to(gradient.dtype)), None


def _padded(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    token_ids = torch.tensor(
        [[*row, *[pad_id] * (width - len(row))] for row in rows], device=device
    )
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return token_ids, torch.arange(width, device=device) < lengths[:, None]
