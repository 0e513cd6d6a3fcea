"""One row of output: what became of one image, or of one pair."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from producer.contract import (
    Chunk,
    ErrorCode,
    ItemResult,
    JobError,
    JobFailed,
    JobResult,
    JobState,
)
from producer.manifest.reference import Reference, spelled

Row = dict[str, Any]

Holds = Literal["int32", "int64", "float64", "string", "strings", "vector", "matches"]
"""What a column holds, by the name that Arrow has for it; `strings` and `vector` are lists, the
latter of float32, and `matches` is a list of objects, of a text and its scores."""

LISTS = frozenset({"strings", "matches"})
"""What is empty rather than missing where nothing is known."""

SKIPPED = "skipped"
IN_SHARD = "published"
"""The state of an image whose result a worker wrote into a shard, where it says how it went."""

MAX_SHOWN_CHARS = 2_048

FIRST: dict[str, Holds] = {
    "index": "int64",
    "source": "string",
    "image": "string",
    "state": "string",
}
"""index: place among all references, from 0. source: where the reference stands. image: the
reference. state: succeeded, failed or published."""

LAST: dict[str, Holds] = {
    "code": "string",
    "message": "string",
    "attempts": "int32",
    "width": "int32",
    "height": "int32",
    "format": "string",
    "sha256": "string",
    "shard": "string",
    "job_id": "string",
}
"""code, message: of what failed. attempts: tries begun. width, height, format, sha256: of the file
as it was fetched. shard: the file that a worker wrote the result into. job_id: of the chunk."""


class Rows(ABC):
    """The rows of one kind of run, and the jobs that they come from. The kinds are in kinds.py."""

    noun: ClassVar[str] = "images"
    """What there is a row for."""

    @property
    @abstractmethod
    def own(self) -> Mapping[str, Holds]:
        """The columns that rows of this kind have between `FIRST` and `LAST`."""

    @abstractmethod
    def job(self, job_id: str, images: tuple[str, ...], references: Sequence[Reference]) -> Chunk:
        """The job of some images, named by these references, in their order."""

    @abstractmethod
    def cells(self, item: ItemResult) -> Row | None:
        """The own columns of an image that succeeded; None where what they need is missing."""

    def given(self, reference: Reference) -> Row:  # noqa: ARG002 - pairs use it
        """The own columns that are known without any result."""
        return {}

    def found(
        self, images: Sequence[str], result: JobResult
    ) -> Iterator[tuple[ItemResult | None, Row | None]]:
        """What a result says of each of the images that its job was asked for, and own columns."""
        items = by_index(result)
        for place in range(len(images)):
            item = items.get(place)
            yield item, self.cells(item) if item and not item.error else None

    @cached_property
    def columns(self) -> dict[str, Holds]:
        """All columns, in order."""
        return FIRST | dict(self.own) | LAST

    def failed(
        self,
        index: int,
        reference: Reference,
        error: JobError,
        job_id: str | None = None,
        attempts: int = 0,
    ) -> Row:
        """The row of an image without a result."""
        return self._row(index, reference, JobState.FAILED.value, job_id) | {
            "code": error.code.value,
            "message": error.message,
            "attempts": attempts,
        }

    def invalid(self, index: int, reference: Reference, sentence: str) -> Row:
        """The row of a reference that no job can ask for."""
        error = JobError(code=ErrorCode.JOB_INVALID, message=sentence)
        return self.failed(index, reference, error)

    def answered(
        self,
        images: tuple[str, ...],
        asked: Sequence[tuple[int, Reference]],
        result: JobResult,
    ) -> list[Row]:
        """A row for each reference of a chunk's job, in order, by what became of the chunk.

        Args:
            images: the URIs that the job was made of.
            asked: the references that name them, with their indices.
            result: of the chunk.
        """
        job_id = result.job_id
        if result.state is not JobState.SUCCEEDED:
            error = result.error or JobError.of(JobFailed(ErrorCode.INTERNAL_ERROR))
            return [self.failed(i, one, error, job_id, result.attempts) for i, one in asked]
        if result.shard is not None:
            shard = {"shard": result.shard}
            return [self._row(i, one, IN_SHARD, job_id) | shard for i, one in asked]
        found = self.found(images, result)
        return [
            self._of_item(index, reference, item, cells, job_id)
            for (index, reference), (item, cells) in zip(asked, found, strict=True)
        ]

    def _of_item(
        self,
        index: int,
        reference: Reference,
        item: ItemResult | None,
        cells: Row | None,
        job_id: str,
    ) -> Row:
        if item is None or cells is None:
            error = item.error if item else None
            error = error or JobError.of(JobFailed(ErrorCode.INTERNAL_ERROR))
            return self.failed(index, reference, error, job_id, item.attempts if item else 0)
        row = self._row(index, reference, JobState.SUCCEEDED.value, job_id) | cells
        row["attempts"] = item.attempts
        if item.image is not None:
            facts = item.image
            row |= {"width": facts.width, "height": facts.height}
            row |= {"format": facts.format, "sha256": facts.sha256}
        return row

    def _row(self, index: int, reference: Reference, state: str, job_id: str | None) -> Row:
        row: Row = {name: [] if kind in LISTS else None for name, kind in self.columns.items()}
        row["index"] = index
        row["source"] = reference.position
        row["image"] = spelled(reference.given[:MAX_SHOWN_CHARS])
        row["state"] = state
        row["attempts"] = 0
        row["job_id"] = job_id
        return row | self.given(reference)


def by_index(result: JobResult) -> dict[int, ItemResult]:
    """What became of a chunk's images, by their place in it."""
    return {item.index: item for item in result.items or ()}


def counted(rows: Sequence[Row], shard_counts: Mapping[str, int] | None = None) -> Counter[str]:
    """How many rows succeeded, and how many failed by code; for rows of a shard, as its counts
    say."""
    if shard_counts is not None and any(row["state"] == IN_SHARD for row in rows):
        rows = [row for row in rows if row["state"] != IN_SHARD]
        return Counter(dict(shard_counts)) + Counter(row["code"] or row["state"] for row in rows)
    return Counter(row["code"] or row["state"] for row in rows)
