"""Image-text matching: ITM logits and ITC cosines (BLIP, Li et al. 2022; ITC after ALBEF).

ITM runs the text through the layers with cross-attention to the image and classifies position 0:
column 1 is "match". ITC runs image and text apart and compares their projections. Position 0 of
ITC is always [CLS]; position 0 of ITM is [ENC] in the paper's code and [CLS] in transformers.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.blip.config import TextConfig
from worker.blip.text import TextModel, text_weights

MAX_PAIRS = 256  # texts, or image-text pairs, of one forward
T = TypeVar("T")


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


def score(
    matcher: Matcher,
    image_embeddings: Tensor,
    texts: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    position_zero: int | None,
    cross_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """ITM logits float32 [N, n, 2] and ITC cosines [N, n] of N images against up to n texts each.

    texts: the token ids of each image's texts, [CLS] first. position_zero: the id that takes
    [CLS]'s place for ITM, or None. Rows with fewer than n texts end in values without meaning.
    cross_mask: bool [N, 1, 1, S], False where image_embeddings have no meaning, or None.
    Each image is projected once, each distinct text is embedded once.
    """
    device = image_embeddings.device
    cross = matcher.text.project_images(image_embeddings)
    distinct = {tuple(text): index for index, text in enumerate(_distinct(texts))}
    vectors = [
        matcher.embed_texts(*right_pad(part, pad_id, device))
        for part in batched(distinct, MAX_PAIRS)
    ]
    cosines = matcher.embed_images(image_embeddings) @ torch.cat(vectors).T

    images, most = len(texts), max(len(row) for row in texts)
    filler = next(iter(distinct))
    square = [[tuple(t) for t in row] + [filler] * (most - len(row)) for row in texts]
    index = torch.tensor([[distinct[text] for text in row] for row in square], device=device)
    logits = []
    for columns in batched(range(most), max(1, MAX_PAIRS // images)):
        token_ids, valid = right_pad(
            [row[column] for row in square for column in columns], pad_id, device
        )
        if position_zero is not None:
            token_ids[:, 0] = position_zero
        shape = (images, len(columns), -1)
        logits.append(
            matcher.itm_logits(cross, token_ids.view(shape), valid.view(shape), cross_mask)
        )
    return torch.cat(logits, dim=1), cosines.gather(1, index)


def right_pad(
    texts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(token_ids, valid), each [N, width], pads last."""
    width = max(len(text) for text in texts)
    token_ids = torch.tensor(
        [list(text) + [pad_id] * (width - len(text)) for text in texts], device=device
    )
    lengths = torch.tensor([len(text) for text in texts], device=device)
    return token_ids, torch.arange(width, device=device) < lengths[:, None]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most `size` items (itertools.batched came with Python 3.12)."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def matcher_weights(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The checkpoint's matching tensors under Matcher's names. KeyError names a missing one."""
    text = text_weights(state, "text_encoder.", num_layers)
    weights = {f"text.{name}": tensor for name, tensor in text.items()}
    for head in ("vision_proj", "text_proj", "itm_head"):
        for kind in ("weight", "bias"):
            weights[f"{head}.{kind}"] = state[f"{head}.{kind}"]
    return weights


def _distinct(texts: Iterable[Iterable[Sequence[int]]]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(tuple(text) for row in texts for text in row))


def _positions(token_ids: Tensor) -> Tensor:
    return torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
