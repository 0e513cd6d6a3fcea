"""ITC embeddings of texts that were embedded before: the same candidates meet every image.

An embedding follows from the weights and the token ids alone, so the ids are the key; an engine,
whose weights never change, keeps one such cache. (Its last bits follow from the texts that shared
its forward, as in every batch.)
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

CAPACITY = 16_384
"""Texts kept by default: their vectors take 17 MB, their token ids about as much again."""

TokenIds = tuple[int, ...]


class TextCache:
    """Unit vectors by token ids, on the host; the texts used longest ago make room for others.

    hits, misses: how often a text was found, or had to be embedded, since the cache was made or
    cleared; a text that one call names several times counts once. Not thread-safe, like the engine.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        self.clear()

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget all texts, and start counting anew."""
        self.hits = self.misses = 0
        self._rows: OrderedDict[TokenIds, int] = OrderedDict()  # used last comes last
        self._vectors: Tensor | None = None  # [capacity, width], made with the first text

    def vectors(
        self, texts: Sequence[TokenIds], embed: Callable[[list[TokenIds]], Tensor]
    ) -> Tensor:
        """The vectors of at least one text, float32 [texts, width] in their order.

        embed: gives the vectors of what is missing, [missing, width], in one call, if any is.
        """
        known: list[TokenIds] = []
        missing: list[TokenIds] = []
        for text in dict.fromkeys(texts):
            (known if text in self._rows else missing).append(text)
        parts = []
        if known and self._vectors is not None:
            parts.append(self._vectors[[self._rows[text] for text in known]])
        if missing:
            parts.append(embed(missing))
        self.hits += len(known)
        self.misses += len(missing)
        for text in known:
            self._rows.move_to_end(text)
        if missing:
            self._keep(missing, parts[-1])
        place = {text: row for row, text in enumerate([*known, *missing])}
        return torch.cat(parts)[[place[text] for text in texts]]

    def _keep(self, texts: list[TokenIds], vectors: Tensor) -> None:
        if self._vectors is None:
            self._vectors = torch.empty(self.capacity, vectors.shape[1])
        texts = texts[-self.capacity :]
        rows = []
        for text in texts:
            full = len(self._rows) == self.capacity
            row = self._rows.popitem(last=False)[1] if full else len(self._rows)
            self._rows[text] = row
            rows.append(row)
        self._vectors[rows] = vectors[-len(texts) :]
