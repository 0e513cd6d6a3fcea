"""Texts as token ids, against encoded images: batches of them through the matcher, and ITC's cache.

What Engine.match, Engine.rank and Engine.embed share. Every image is projected once per call, every
text is embedded once in the life of the cache.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from worker.blip.matching import Matcher
from worker.blip.text_cache import TextCache, TokenIds

MAX_PAIRS = 256  # texts, or image-text pairs, of one forward
T = TypeVar("T")


class Scorer:
    """A matcher, and what it has made of texts before.

    Token ids begin with [CLS]; `pad_id` fills rows.
    """

    def __init__(self, matcher: Matcher, pad_id: int, cache: TextCache) -> None:
        self._matcher, self._pad_id, self._cache = matcher, pad_id, cache
        self.width = matcher.text_proj.out_features

    def embed_images(self, image_embeddings: Tensor) -> Tensor:
        """ITC vectors, float32 [N, width] on the host, of [N, S, encoder_hidden]."""
        return self._matcher.embed_images(image_embeddings).cpu()

    def embed_texts(self, texts: Sequence[TokenIds]) -> Tensor:
        """ITC vectors, float32 [texts, width] on the host, from the cache where it has them."""
        if not texts:
            return torch.empty(0, self.width)
        return self._cache.vectors(texts, self._make)

    def cosines(self, image_embeddings: Tensor, texts: Sequence[Sequence[TokenIds]]) -> Tensor:
        """ITC of N images with up to n texts each, at least one in all: float32 [N, n] on the host.

        Rows with fewer than n texts end in values without meaning.
        """
        distinct = list(dict.fromkeys(text for row in texts for text in row))
        column = {text: index for index, text in enumerate(distinct)}
        columns = _square([[column[text] for text in row] for row in texts], 0)
        every = self.embed_images(image_embeddings) @ self.embed_texts(distinct).T
        return every.gather(1, torch.tensor(columns))

    def itm_logits(
        self,
        image_embeddings: Tensor,
        texts: Sequence[Sequence[TokenIds]],
        position_zero: int | None,
        cross_mask: Tensor | None = None,
    ) -> Tensor:
        """ITM of N images with up to n texts each, at least one in all: float32 [N, n, 2] there.

        position_zero: the id that takes [CLS]'s place, or None. cross_mask: bool [N, 1, 1, S],
        False where image_embeddings have no meaning, or None. Rows with fewer than n texts end in
        values without meaning.
        """
        device, images = image_embeddings.device, len(texts)
        cross = self._matcher.text.project_images(image_embeddings)
        square = _square(texts, next(text for row in texts for text in row))
        logits = []
        for columns in batched(range(len(square[0])), max(1, MAX_PAIRS // images)):
            token_ids, valid = right_pad(
                [row[column] for row in square for column in columns], self._pad_id, device
            )
            if position_zero is not None:
                token_ids[:, 0] = position_zero
            shape = (images, len(columns), -1)
            logits.append(
                self._matcher.itm_logits(
                    cross, token_ids.view(shape), valid.view(shape), cross_mask
                )
            )
        return torch.cat(logits, dim=1).cpu()

    def _make(self, texts: Sequence[TokenIds]) -> Tensor:
        """ITC vectors of texts; those of like length share a forward, so that few pads are read."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = []
        for part in batched(order, MAX_PAIRS):
            some = [texts[index] for index in part]
            padded = right_pad(some, self._pad_id, self._matcher.text_proj.weight.device)
            parts.append(self._matcher.embed_texts(*padded))
        vectors = torch.empty(len(texts), self.width)
        vectors[order] = torch.cat(parts).cpu()
        return vectors


def shortlists(cosines: Tensor, counts: Sequence[int], k: int) -> list[list[int]]:
    """The columns of each row's k highest cosines, or of all where it has fewer, best first.

    cosines: [N, n]; of row i the first counts[i] are meant.
    """
    return [
        row[:count].topk(min(k, count)).indices.tolist()
        for row, count in zip(cosines, counts, strict=True)
    ]


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


def _square(rows: Sequence[Sequence[T]], filler: T) -> list[list[T]]:
    most = max(len(row) for row in rows)
    return [[*row, *[filler] * (most - len(row))] for row in rows]
