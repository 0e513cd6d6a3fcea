"""What the two passes of a ranking keep of their rows: the best by cosine, and these weighed."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul

from producer.contract import (
    EmbedChunk,
    Embedding,
    EmbeddingMismatch,
    ItemResult,
    JobResult,
    MatchChunk,
)
from producer.manifest.kinds import SCORES, Embeddings, Matches
from producer.manifest.reference import Reference
from producer.manifest.rows import Holds, Row, counted


@dataclass(frozen=True)
class RankedImage:
    """One of the best images. `index` is its place among all of them, from 0, `source` where it
    was named, `score` what it is ranked by: itm_logit + itc_cosine."""

    index: int
    source: str
    image: str
    score: float
    itm_logit: float
    itm_probability: float
    itc_cosine: float
    calibrated_probability: float | None = None
    decision: str | None = None


class Cosines(Embeddings):
    """Rows with the cosine of an image and a text."""

    def __init__(self, chunk: EmbedChunk, text: Embedding) -> None:
        super().__init__(chunk)
        self._text = text
        self._values = text.values()

    @property
    def own(self) -> Mapping[str, Holds]:
        """See `Rows.own`. uri: what workers were asked for."""
        return {"itc_cosine": "float64", "uri": "string"}

    def found(
        self, images: Sequence[str], result: JobResult
    ) -> Iterator[tuple[ItemResult | None, Row | None]]:
        """See `Rows.found`."""
        for uri, (item, cells) in zip(images, super().found(images, result), strict=True):
            yield item, cells and cells | {"uri": uri}

    def cells(self, item: ItemResult) -> Row | None:
        """See `Rows.cells`."""
        if not item.embeddings:
            return None
        (embedding,) = item.embeddings
        self._text.check_comparable(embedding)
        values = embedding.values()
        if len(values) != len(self._values):
            raise EmbeddingMismatch(f"Embeddings of {len(self._values)} and {len(values)} numbers.")
        return {"itc_cosine": sum(map(mul, self._values, values))}


class Weighed(Matches):
    """Rows of matches by the model that embedded the text."""

    def __init__(self, chunk: MatchChunk, text: Embedding) -> None:
        super().__init__(chunk)
        self._text = text

    def found(
        self, images: Sequence[str], result: JobResult
    ) -> Iterator[tuple[ItemResult | None, Row | None]]:
        """See `Rows.found`."""
        by = result.space
        if by is not None and by != (self._text.model, self._text.revision):
            raise EmbeddingMismatch(
                f"The shortlist is of {self._text.model} at {self._text.revision}, and was weighed "
                f"by {by[0]} at {by[1]}."
            )
        yield from super().found(images, result)


class Kept:
    """In place of an output: rows that matter stay in memory. What these are, `write` knows."""

    due = False

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""

    def commit(self) -> int:
        """See `Output.commit`."""
        return 0

    def close(self) -> None:
        """See `Output.close`."""


class Shortlist(Kept):
    """The k rows with the highest cosines; of equal ones those that were named first."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._heap: list[tuple[float, int, Row]] = []

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`."""
        for row in rows:
            if row["code"] is None:
                entry = (row["itc_cosine"], -row["index"], row)
                if len(self._heap) < self._k:
                    heapq.heappush(self._heap, entry)
                else:
                    heapq.heappushpop(self._heap, entry)

    @property
    def rows(self) -> list[Row]:
        """They, highest first."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]

    def references(self) -> Iterator[Reference]:
        """They, as workers were asked for them."""
        return (Reference(row["source"], row["uri"]) for row in self.rows)


class Best(Kept):
    """The rows of the shortlist, weighed."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self.failed: Counter[str] = Counter()

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`."""
        self._rows += [row for row in rows if row["code"] is None]
        self.failed += counted([row for row in rows if row["code"] is not None])

    def images(self, shortlist: Sequence[Row]) -> Iterator[RankedImage]:
        """They, best first, named as in the first pass."""
        for row in sorted(self._rows, key=lambda row: -row["score"]):
            first = shortlist[row["index"]]
            named = {name: first[name] for name in ("index", "source", "image")}
            yield RankedImage(**named, **{name: row[name] for name in SCORES})
