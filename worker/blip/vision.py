"""The image encoder: ViT (Dosovitskiy et al. 2021), as BLIP's checkpoints store it.

Pre-LN layers with fused qkv, exact GELU, a class token at position 0, learned positions, and a
last LayerNorm over all tokens. Module names equal the checkpoint's, without `vision_model.`.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.blip.config import VisionConfig
from worker.blip.linear import Linear
from worker.blip.softmax_attention import attend

_CACHED_IMAGES = 4  # a CPU takes so many through all layers at once: what is between stays in cache
_GRIDS_KEPT = 32  # interpolated position embeddings: up to 7 MB each for BLIP-base in float32


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for q, k and v."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.projection = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, residual: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """[N, tokens, hidden] to the same, plus `residual`; key_mask is VisionModel.encode's."""
        batch, tokens, width = hidden.shape
        qkv = self.qkv(hidden).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return self.projection.add(attend(query, key, value, key_mask), residual)


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

    def forward(self, hidden: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """[N, tokens, hidden] to the same; key_mask is VisionModel.encode's."""
        hidden = self.self_attn(self.layer_norm1(hidden), hidden, key_mask)
        output: Tensor = self.mlp(self.layer_norm2(hidden), hidden)
        return output


class Embeddings(nn.Module):
    """Patches, class token and positions, for any grid of patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.grid = config.grid
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.position_embedding = nn.Parameter(torch.empty(1, config.num_tokens, width))
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self._interpolated: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """float [N, 3, H, W], H and W multiples of the patch size, to [N, 1 + patches, hidden]."""
        pixel_values = pixel_values.to(self.patch_embedding.weight.dtype)
        patches = self.patch_embedding(pixel_values)
        positions = self.positions((patches.shape[2], patches.shape[3]))
        class_token = self.class_embedding.expand(len(patches), -1, -1)
        return torch.cat([class_token, patches.flatten(2).transpose(1, 2)], dim=1) + positions

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings of a grid (down, across), [1, 1 + patches, hidden].

        The learned ones for the checkpoint's own grid; for others these interpolated, bicubic with
        align_corners=False, as by transformers' interpolate_pos_encoding. Kept for the grids that
        were used last.
        """
        if grid == self.grid:
            return self.position_embedding
        found = self._interpolated.pop(grid, None)
        if found is None:
            class_token, patches = self.position_embedding.tensor_split([1], dim=1)
            learned = patches.float().reshape(1, *self.grid, -1).permute(0, 3, 1, 2)
            resized = functional.interpolate(
                learned, size=grid, mode="bicubic", align_corners=False
            )
            flat = resized.flatten(2).transpose(1, 2).to(patches.dtype)
            found = torch.cat([class_token, flat], dim=1)
        self._interpolated[grid] = found
        if len(self._interpolated) > _GRIDS_KEPT:
            self._interpolated.popitem(last=False)
        return found


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
        return self.encode(self.embeddings(pixel_values))

    def forward_mixed(
        self, groups: Sequence[tuple[Sequence[int], Tensor]]
    ) -> tuple[Tensor, Tensor | None]:
        """Images of several sizes in one pass.

        groups: the rows of a batch of N that have one size, and their pixel_values. Returns
        (embeddings [N, tokens, hidden], valid): rows with fewer tokens than the longest end in
        values without meaning, where valid, bool [N, tokens], is False; None where there are none.
        """
        parts = [(list(rows), self.embeddings(pixel_values)) for rows, pixel_values in groups]
        if len(parts) == 1:
            return self.encode(parts[0][1]), None
        batch = sum(len(rows) for rows, _ in parts)
        tokens = max(part.shape[1] for _, part in parts)
        hidden = parts[0][1].new_zeros(batch, tokens, self.config.hidden_size)
        valid = torch.zeros(batch, tokens, dtype=torch.bool, device=hidden.device)
        for rows, part in parts:
            index = torch.tensor(rows, device=hidden.device)
            hidden[index, : part.shape[1]] = part
            valid[index, : part.shape[1]] = True
        if all(part.shape[1] == tokens for _, part in parts):
            return self.encode(hidden), None
        return self.encode(hidden, valid[:, None, None]), valid

    def encode(self, hidden: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Embeddings' tokens [N, tokens, hidden] through all layers, to the same shape.

        key_mask: bool, broadcast to [N, heads, tokens, tokens], True where a token may be seen.
        """
        if hidden.device.type != "cpu" and len(hidden):
            return self._encode(hidden, key_mask)
        embeddings = torch.empty_like(hidden)
        for start in range(0, len(hidden), _CACHED_IMAGES):
            part = slice(start, start + _CACHED_IMAGES)
            mask = None if key_mask is None else key_mask[part]
            embeddings[part] = self._encode(hidden[part], mask)
        return embeddings

    def _encode(self, hidden: Tensor, key_mask: Tensor | None) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, key_mask)
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
