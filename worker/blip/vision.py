"""The image encoder: ViT (Dosovitskiy et al. 2021), as BLIP's checkpoints store it.

Pre-LN layers with fused qkv, exact GELU, a class token at position 0, learned positions, and a
last LayerNorm over all tokens. Module names equal the checkpoint's, without `vision_model.`.
"""

import torch
from torch import Tensor, nn

from worker.blip.config import VisionConfig
from worker.blip.linear import Linear
from worker.blip.softmax_attention import attend


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for q, k and v."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.projection = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """[N, tokens, hidden] to the same, plus `residual`."""
        batch, tokens, width = hidden.shape
        qkv = self.qkv(hidden).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return self.projection.add(attend(query, key, value), residual)


class Mlp(nn.Module):
    """Feed-forward with exact GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """[N, tokens, hidden] to the same, plus `residual`."""
        return self.fc2.add(self.fc1.gelu(hidden), residual)


class Layer(nn.Module):
    """One pre-LN transformer layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, tokens, hidden] to the same."""
        hidden = self.self_attn(self.layer_norm1(hidden), hidden)
        output: Tensor = self.mlp(self.layer_norm2(hidden), hidden)
        return output


class Embeddings(nn.Module):
    """Patches, class token and positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.position_embedding = nn.Parameter(torch.empty(1, config.num_tokens, width))
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 1 + patches, hidden]."""
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        class_token = self.class_embedding.expand(len(patches), -1, -1)
        return torch.cat([class_token, patches], dim=1) + self.position_embedding


class VisionModel(nn.Module):
    """Images to image embeddings."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: float [N, 3, H, W], normalised. Returns [N, 1 + patches, hidden]."""
        hidden = self.embeddings(pixel_values.to(self.post_layernorm.weight.dtype))
        for layer in self.layers:
            hidden = layer(hidden)
        embeddings: Tensor = self.post_layernorm(hidden)
        return embeddings


def vision_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's `vision_model.*` tensors under VisionModel's names."""
    prefix = "vision_model."
    return {
        name.removeprefix(prefix).replace("encoder.layers.", "layers."): tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and not name.endswith("position_ids")
    }
