"""Image-text matching: ITM logits and ITC cosines (BLIP, Li et al. 2022; ITC after ALBEF).

ITM runs the text through the layers with cross-attention to the image and classifies position 0:
column 1 is "match". ITC runs image and text apart and compares their projections. Position 0 of
ITC is always [CLS]; position 0 of ITM is [ENC] in the paper's code and [CLS] in transformers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.blip.config import TextConfig
from worker.blip.text import TextModel, text_weights


class Matcher(nn.Module):
    """BLIP's text encoder with its three heads: both projections (ITC) and the ITM classifier."""

    def __init__(self, text: TextConfig, projection_size: int) -> None:
        super().__init__()
        self.text = TextModel(text)
        self.vision_proj = nn.Linear(text.encoder_hidden_size, projection_size)
        self.text_proj = nn.Linear(text.hidden_size, projection_size)
        self.itm_head = nn.Linear(text.hidden_size, 2)

    def embed_images(self, image_embeddings: Tensor) -> Tensor:
        """[N, S, encoder_hidden] to float32 unit vectors [N, projection]."""
        return functional.normalize(self.vision_proj(image_embeddings[:, 0]).float(), dim=-1)

    def embed_texts(self, token_ids: Tensor, valid: Tensor) -> Tensor:
        """int64 and bool [N, T], right-padded, [CLS] first; to unit vectors [N, projection]."""
        hidden = self.text(token_ids, _positions(token_ids), valid[:, None, None, :])
        return functional.normalize(self.text_proj(hidden[:, 0]).float(), dim=-1)

    def itm_logits(
        self, cross: Tensor, token_ids: Tensor, valid: Tensor, cross_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (no match, match) of each image against its own texts, float32 [N, n, 2].

        cross: project_images of N images; token_ids, valid: [N, n, T], right-padded.
        cross_mask: TextModel's.
        """
        images, texts, width = token_ids.shape
        flat = token_ids.view(images * texts, width)
        mask = valid.view(images * texts, 1, 1, width)
        hidden = self.text(flat, _positions(flat), mask, cross, cross_mask=cross_mask)
        logits: Tensor = self.itm_head(hidden[:, 0]).float()
        return logits.view(images, texts, 2)


def matcher_weights(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The checkpoint's matching tensors under Matcher's names. KeyError names a missing one."""
    text = text_weights(state, "text_encoder.", num_layers)
    weights = {f"text.{name}": tensor for name, tensor in text.items()}
    for head in ("vision_proj", "text_proj", "itm_head"):
        for kind in ("weight", "bias"):
            weights[f"{head}.{kind}"] = state[f"{head}.{kind}"]
    return weights


def _positions(token_ids: Tensor) -> Tensor:
    return torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
