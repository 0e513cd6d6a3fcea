"""Attention rollout through the ViT (Abnar & Zuidema 2020).

After some layers a token of the ViT no longer stands for its own patch alone: it has gathered from
others. Rollout says from which. A layer passes on half of what it attends to, averaged over heads,
and half of what it was (the residual); the product over all layers gives each last token's shares
of the first ones.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from worker.blip.vision import Layer, VisionModel

_IMAGES = 4  # whose probabilities are held at once: 16 MB each for BLIP-base in float32


def rollout(vision: VisionModel, pixel_values: Tensor) -> Tensor:
    """float [N, 3, H, W] to float32 [N, tokens, tokens]; row i sums to 1: the shares of token i."""
    starts = range(0, len(pixel_values), _IMAGES)
    return torch.cat([_rollout(vision, pixel_values[start : start + _IMAGES]) for start in starts])


def _rollout(vision: VisionModel, pixel_values: Tensor) -> Tensor:
    hidden = vision.embeddings(pixel_values)
    images, tokens, _ = hidden.shape
    itself = torch.eye(tokens, device=hidden.device)
    shares = itself.expand(images, -1, -1)
    for layer in cast("Iterable[Layer]", vision.layers):
        attention = layer.self_attn
        qkv = attention.qkv(layer.layer_norm1(hidden))
        query, key, value = qkv.view(images, tokens, 3, attention.num_heads, -1).permute(
            2, 0, 3, 1, 4
        )
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        probabilities = scores.float().softmax(dim=-1)
        seen = torch.matmul(probabilities.to(value.dtype), value).transpose(1, 2).flatten(2)
        hidden = attention.projection.add(seen, hidden)
        hidden = layer.mlp(layer.layer_norm2(hidden), hidden)
        shares = torch.matmul((probabilities.mean(dim=1) + itself) / 2, shares)
    return shares
