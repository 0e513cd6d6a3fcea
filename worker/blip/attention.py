"""Where the model looked for each word of captions and texts that are given.

Four methods make a map of an image's tokens for each token of a text:

    attention   cross-attention probabilities of the replay
    rollout     the same, followed through the ViT to the patches they came from: rollout.py
    gradcam     the same, times their gradients where these are positive (Selvaraju et al. 2017; on
                cross-attention as in ALBEF and LAVIS): of the caption's log-probability, the sum of
                its tokens', or of ITM's logit of "match"
    occlusion   what a token's log-probability, or that logit, loses where patches are hidden:
                occlusion.py

A word's map is the sum over its tokens, without the class token, scaled to 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.blip.explanation import (
    DEFAULT_METHOD,
    METHODS,
    POSITIONS,
    ExplainedWord,
    Explanation,
    Method,
    Position,
)
from worker.blip.geometry import Grid
from worker.blip.occlusion import drops
from worker.blip.readers import Reader, read
from worker.blip.replay import Replayed, Texts, split
from worker.blip.rollout import rollout
from worker.blip.tokenizer import Tokenizer
from worker.blip.vision import VisionModel
from worker.blip.words import spans

_MOST_TOKENS = 512
"""Of texts that are replayed at once: with every layer's maps kept, 0.17 GB for BLIP-base."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to explain.

    method    one of METHODS
    layers    of the text stack, counted from 0 or, below 0, from its end; their maps are averaged.
              None is the middle one for attention and rollout, all of them for gradcam
    heads     of these layers, averaged too; None is all
    position  whose query explains a token: "predicting" is the one before it, which the decoder
              reads its probability from; "own" is its own
    raw       keep every layer's and head's probabilities

    layers and heads mean nothing to occlusion. Raises ValueError for a value out of range.
    """

    method: Method = DEFAULT_METHOD
    layers: int | Sequence[int] | None = None
    heads: int | Sequence[int] | None = None
    position: Position = "predicting"
    raw: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be {', '.join(METHODS)}, not {self.method!r}")
        if self.position not in POSITIONS:
            raise ValueError(f"position must be {', '.join(POSITIONS)}, not {self.position!r}")

    def layers_of(self, count: int) -> list[int]:
        """The layers to average, of so many."""
        if self.layers is None:
            return list(range(count)) if self.method == "gradcam" else [count // 2]
        return _chosen("layers", self.layers, count)

    def heads_of(self, count: int) -> list[int]:
        """The heads to average, of so many."""
        return list(range(count)) if self.heads is None else _chosen("heads", self.heads, count)


@dataclass(frozen=True)
class Row:
    """One text to explain: `token_ids` as the model reads them, of which start..end are explained.

    text: as the answer is to name it. end lies outside.
    """

    text: str
    token_ids: Sequence[int]
    start: int
    end: int


@dataclass(frozen=True)
class Seen:
    """Images to explain by: encoded, [N, S, hidden].

    places: theirs in the call. pixels: float [N, 3, H, W] of images of one size; None where they
    are not known.
    """

    places: Sequence[int]
    embeddings: Tensor
    key_mask: Tensor | None
    grids: Sequence[Grid]
    pixels: Tensor | None

    def part(self, of: slice) -> "Seen":
        """Some of them."""
        return Seen(
            self.places[of],
            self.embeddings[of],
            None if self.key_mask is None else self.key_mask[of],
            self.grids[of],
            None if self.pixels is None else self.pixels[of],
        )

    def some(self, places: Sequence[int]) -> "Seen":
        """Those of these places in the call."""
        wanted = set(places)
        rows = [row for row, place in enumerate(self.places) if place in wanted]
        return Seen(
            [self.places[row] for row in rows],
            self.embeddings[rows],
            None if self.key_mask is None else self.key_mask[rows],
            [self.grids[row] for row in rows],
            None if self.pixels is None else self.pixels[rows],
        )


@dataclass(frozen=True)
class Explainer:
    """Explains texts by one reader of them; `vision` has made what is seen.

    Raises ValueError for a layer or head that is not there, and for a method that starts from
    pixels where there are none.
    """

    reader: Reader
    vision: VisionModel
    tokenizer: Tokenizer
    way: Way

    def __post_init__(self) -> None:
        self._layers, self._heads  # noqa: B018 - they are checked here

    @property
    def _layers(self) -> list[int]:
        return self.way.layers_of(self.reader.text.config.num_layers)

    @property
    def _heads(self) -> list[int]:
        return self.way.heads_of(self.reader.text.config.num_heads)

    @property
    def _shift(self) -> int:
        """How far before a token the query stands that explains it."""
        return 1 if self.way.position == "predicting" else 0

    def explain(
        self, seen: Sequence[Seen], rows: Sequence[Sequence[Row]]
    ) -> list[list[Explanation]]:
        """Each row of each image of a call. Call it outside inference mode."""
        found: list[list[Explanation]] = [[] for _ in rows]
        for images in seen:
            for part in parts([rows[place] for place in images.places]):
                some = images.part(part)
                for asked in portions([rows[place] for place in some.places]):
                    answers = self._part(some, asked)
                    for place, of_image in zip(some.places, answers, strict=True):
                        found[place] += of_image
        return found

    @torch.no_grad()
    def _part(self, seen: Seen, rows: Sequence[Sequence[Row]]) -> list[list[Explanation]]:
        """Of images with at least one row among them."""
        reader, way = self.reader, self.way
        most = max(len(of_image) for of_image in rows)
        filler = min((row for some in rows for row in some), key=lambda row: len(row.token_ids))
        square = [row for some in rows for row in [*some, *[filler] * (most - len(some))]]
        texts = reader.texts([row.token_ids for row in square], seen.embeddings.device)
        count = reader.text.config.num_layers
        kept = range(count) if way.raw else self._layers
        replayed, scores = read(
            reader, seen.embeddings, texts, seen.key_mask, kept, way.method == "gradcam"
        )
        maps = self._maps(seen, texts, replayed, scores).cpu()
        scores = scores.detach().cpu()
        raw = [replayed.per_text(layer).detach().cpu() for layer in kept] if way.raw else []
        every = torch.stack(raw, dim=1) if raw else None  # [B, layers, heads, T, S]
        return [
            [
                self._explanation(
                    row, grid, maps[at], scores[at], None if every is None else every[at]
                )
                for at, row in enumerate(of_image, start=image * most)
            ]
            for image, (of_image, grid) in enumerate(zip(rows, seen.grids, strict=True))
        ]

    def _maps(self, seen: Seen, texts: Texts, replayed: Replayed, scores: Tensor) -> Tensor:
        """Each token's map, float32 [B, T, S]; a caption's first token has one without meaning."""
        method, reader, vision = self.way.method, self.reader, self.vision
        if method == "occlusion":
            pixels = self._pixels(seen)
            return drops(pixels, seen.grids[0], lambda p: read(reader, vision(p), texts)[1])
        looked = [replayed.maps[layer] for layer in self._layers]
        if method == "gradcam":
            gradients = torch.autograd.grad(scores, looked, torch.ones_like(scores))
            looked = [m.detach() * g.clamp(min=0) for m, g in zip(looked, gradients, strict=True)]
        mean = torch.stack([maps[:, self._heads].mean(dim=1, keepdim=True) for maps in looked])
        mean = mean.mean(dim=0)
        if method == "rollout":
            mean = torch.matmul(mean, rollout(vision, self._pixels(seen))[:, None])
        return split(mean, len(texts.token_ids))[:, 0].roll(self._shift, dims=1)

    def _pixels(self, seen: Seen) -> Tensor:
        if seen.pixels is None:
            method = self.way.method
            raise ValueError(f"{method} starts from pixels: give the images, not encoded ones")
        return seen.pixels

    def _explanation(
        self, row: Row, grid: Grid, maps: Tensor, scores: Tensor, raw: Tensor | None
    ) -> Explanation:
        """Of one row: maps [T, S], scores [T], raw [layers, heads, T, S]."""
        patches = slice(1, 1 + grid[0] * grid[1])
        asked = slice(row.start, row.end)
        token_ids, maps, scores = list(row.token_ids[asked]), maps[asked, patches], scores[asked]
        places = spans(token_ids, self.tokenizer.vocabulary)
        if raw is not None:
            raw = raw[:, :, row.start - self._shift : row.end - self._shift, patches]
        return Explanation(
            text=row.text,
            tokens=self.tokenizer.tokens(token_ids),
            words=[
                ExplainedWord(
                    self.tokenizer.decode(token_ids[first : last + 1]),
                    first,
                    last,
                    float(scores[first : last + 1].sum()) if self.reader.predicts else None,
                )
                for first, last in places
            ],
            maps=_shares([maps[first : last + 1].sum(dim=0) for first, last in places], grid),
            grid=grid,
            method=self.way.method,
            raw=None if raw is None else raw.reshape(*raw.shape[:3], *grid).numpy(),
        )


def parts(rows: Sequence[Sequence[Row]]) -> Iterator[slice]:
    """Images in parts, whose texts make one rectangle of no more than _MOST_TOKENS tokens each, if
    they are of several images."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or _tokens(rows[start : end + 1]) > _MOST_TOKENS:
            yield slice(start, end)
            start = end


def portions(rows: Sequence[Sequence[Row]]) -> Iterator[list[Sequence[Row]]]:
    """The texts of a part as they are replayed: together, or, where those of one image are more
    than _MOST_TOKENS tokens, some after others. Nothing where there are none."""
    if len(rows) != 1:
        if any(rows):
            yield list(rows)
        return
    [of_image] = rows
    start = 0
    for end in range(1, len(of_image) + 1):
        if end == len(of_image) or _tokens([of_image[start : end + 1]]) > _MOST_TOKENS:
            yield [of_image[start:end]]
            start = end


def _tokens(rows: Sequence[Sequence[Row]]) -> int:
    """Tokens of the rectangle that these images' rows are padded to."""
    texts = max(len(of_image) for of_image in rows)
    width = max((len(row.token_ids) for of_image in rows for row in of_image), default=0)
    return len(rows) * texts * width


def _shares(maps: Sequence[Tensor], grid: Grid) -> NDArray[np.float32]:
    """Maps [patches] as [maps, rows, columns], each without what is negative, with sum 1."""
    rows, columns = grid
    if not maps:
        return np.empty((0, rows, columns), np.float32)
    positive = torch.stack(list(maps)).clamp(min=0).double()
    total = positive.sum(dim=1, keepdim=True)
    even = torch.full_like(positive, 1 / (rows * columns))
    shares = torch.where(total > 0, positive / total, even)
    made: NDArray[np.float32] = shares.float().view(-1, rows, columns).numpy()
    return made


def _chosen(name: str, given: int | Sequence[int], count: int) -> list[int]:
    numbers = [given] if isinstance(given, int) else list(given)
    if not numbers or any(not -count <= number < count for number in numbers):
        raise ValueError(f"{name} are {-count} to {count - 1} here, not {given}")
    return list(dict.fromkeys(number % count for number in numbers))
