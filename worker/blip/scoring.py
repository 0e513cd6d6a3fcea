"""Texts as token ids, against encoded images: batches of them through the matcher, and ITC's cache.

What Engine.match, Engine.rank and Engine.embed share. Every image is projected once per call, every
text is embedded once in the life of the cache.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from worker.blip.matching import Matcher
from worker.blip.text_cache import TextCache, TokenIds

MAX_PAIRS = 256  # texts, or image-text pairs, of one forward
_MAX_TOKENS = {"cpu": 2_048, "gpu": 32_768}
"""Tokens of one forward, pads included, unless a single text of each image has more: more of them
are no faster, and take memory and time."""
_SPARED_PADS = {"cpu": 32, "gpu": 2048}
"""As many pads as one more forward costs: on a CPU measured, at BLIP-base's widths; on a GPU what a
forward's launches take, against the products of a token."""
T = TypeVar("T")


class Scorer:
    """A matcher, and what it has made of texts before.

    Token ids begin with [CLS]; `pad_id` fills rows.
    """

    def __init__(self, matcher: Matcher, pad_id: int, cache: TextCache) -> None:
        self.matcher, self._pad_id, self._cache = matcher, pad_id, cache
        self.width = matcher.text_proj.out_features
        self._device = matcher.text_proj.weight.device
        self._kind = "cpu" if self._device.type == "cpu" else "gpu"
        self.on_forward: Callable[[], None] = lambda: None
        """Called after each of the forwards that a call is made of."""

    def embed_images(self, image_embeddings: Tensor) -> Tensor:
        """ITC vectors, float32 [N, width] on the host, of [N, S, encoder_hidden]."""
        return self.matcher.embed_images(image_embeddings).cpu()

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
        """ITM of N images with up to n texts each, at least one in all: float32 [N, n, 2].

        position_zero: the id that takes [CLS]'s place, or None. cross_mask: bool [N, 1, 1, S],
        False where image_embeddings have no meaning, or None. Rows with fewer than n texts end in
        values without meaning.
        """
        cross = self.matcher.text.project_images(image_embeddings)
        found = torch.empty(len(texts), max(map(len, texts)), 2)
        for members in alike([[len(text) for text in row] for row in texts]):
            every = len(members) == len(texts)
            rows = [texts[at] for at in members]
            logits = self._square_logits(
                cross if every else cross[:, :, members],
                rows,
                position_zero,
                cross_mask if every or cross_mask is None else cross_mask[members],
            )
            found[members, : logits.shape[1]] = logits
        return found

    def _square_logits(
        self,
        cross: Tensor,
        texts: Sequence[Sequence[TokenIds]],
        position_zero: int | None,
        cross_mask: Tensor | None,
    ) -> Tensor:
        """itm_logits of images whose texts take about as many tokens, none of them without any."""
        images = len(texts)
        square = _square(texts, min((text for row in texts for text in row), key=len))
        order = [_by_length(row) for row in square]
        by_length = [[row[at] for at in places] for row, places in zip(square, order, strict=True)]
        widths = [max(map(len, column)) for column in zip(*by_length, strict=True)]
        logits = []
        for columns in self._batches(widths, images):
            token_ids, valid = self._padded([text for row in by_length for text in row[columns]])
            if position_zero is not None:
                token_ids[:, 0] = position_zero
            shape = (images, columns.stop - columns.start, -1)
            logits.append(
                self.matcher.itm_logits(cross, token_ids.view(shape), valid.view(shape), cross_mask)
            )
            self.on_forward()
        found = torch.cat(logits, dim=1).cpu()
        places = torch.tensor(order)[..., None].expand_as(found)
        return torch.empty_like(found).scatter_(1, places, found)

    def _make(self, texts: Sequence[TokenIds]) -> Tensor:
        order = _by_length(texts)
        by_length = [texts[at] for at in order]
        parts = []
        for part in self._batches([len(text) for text in by_length], 1):
            parts.append(self.matcher.embed_texts(*self._padded(by_length[part])))
            self.on_forward()
        vectors = torch.empty(len(texts), self.width)
        vectors[order] = torch.cat(parts).cpu()
        return vectors

    def _batches(self, widths: Sequence[int], images: int) -> list[slice]:
        pads, tokens = _SPARED_PADS[self._kind] // images, _MAX_TOKENS[self._kind] // images
        return batches(widths, max(1, MAX_PAIRS // images), pads, tokens)

    def _padded(self, texts: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
        """(token_ids, valid), each [texts, width], pads last."""
        lengths = torch.tensor([len(text) for text in texts], device=self._device)
        width = max(len(text) for text in texts)
        token_ids = torch.tensor(
            [[*text, *[self._pad_id] * (width - len(text))] for text in texts], device=self._device
        )
        return token_ids, torch.arange(width, device=self._device) < lengths[:, None]


def batches(widths: Sequence[int], most: int, pads: int, tokens: int) -> list[slice]:
    """Consecutive parts of texts, shortest first, each to be one forward as wide as its last text.

    widths: tokens of each text, rising. A part has at most `most` texts and, unless it is a single
    text, `tokens` with its pads; it ends before a text for whose width more than `pads` pads would
    be read.
    """
    parts = []
    start = padded = 0
    for end, width in enumerate(widths):
        if end > start:
            padded += (end - start) * (width - widths[end - 1])
            if end - start == most or padded > pads or (end - start + 1) * width > tokens:
                parts.append(slice(start, end))
                start, padded = end, 0
    return [*parts, slice(start, len(widths))] if widths else []


def alike(lengths: Sequence[Sequence[int]]) -> list[list[int]]:
    """The places of rows in groups, each to be read as one rectangle, without rows of no texts.

    lengths: tokens of each text of each row. What texts share a forward is as wide as the longest,
    and rows of fewer texts are filled: a group's rectangle is at most twice what its rows have.
    """
    by_size = sorted((i for i, row in enumerate(lengths) if row), key=lambda i: sum(lengths[i]))
    groups: list[list[int]] = []
    widths: list[int] = []  # of the last group's columns, rising
    own = 0  # tokens that its rows have
    for place in by_size:
        row = sorted(lengths[place])
        most = max(len(row), len(widths))
        both = ([0] * (most - len(one)) + one for one in (row, widths))
        together = [max(pair) for pair in zip(*both, strict=True)]
        size = len(groups[-1]) + 1 if groups else 1
        if groups and size * sum(together) <= 2 * (own + sum(row)):
            groups[-1].append(place)
            widths, own = together, own + sum(row)
        else:
            groups.append([place])
            widths, own = row, sum(row)
    return [sorted(group) for group in groups]


def shortlists(cosines: Tensor, counts: Sequence[int], k: int) -> list[list[int]]:
    """The columns of each row's k highest cosines, or of all where it has fewer, best first.

    cosines: [N, n]; of row i the first counts[i] are meant.
    """
    return [
        row[:count].topk(min(k, count)).indices.tolist()
        for row, count in zip(cosines, counts, strict=True)
    ]


def _square(rows: Sequence[Sequence[T]], filler: T) -> list[list[T]]:
    most = max(len(row) for row in rows)
    return [[*row, *[filler] * (most - len(row))] for row in rows]


def _by_length(texts: Sequence[TokenIds]) -> list[int]:
    """The places of texts, the shortest text's first."""
    return sorted(range(len(texts)), key=lambda place: len(texts[place]))
