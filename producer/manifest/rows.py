"""One row of output: what became of one image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from producer.contract import ErrorCode, ItemResult, JobError, JobFailed, JobResult, JobState
from producer.manifest.reference import Reference, spelled

Row = dict[str, Any]

SKIPPED = "skipped"
IN_SHARD = "published"
"""The state of an image whose result a worker wrote into a shard, where it says how it went."""

MAX_SHOWN_CHARS = 2_048

FIELDS = (
    "index",
    "source",
    "image",
    "state",
    "caption",
    "score",
    "mean_logprob",
    "alternatives",
    "code",
    "message",
    "attempts",
    "width",
    "height",
    "format",
    "sha256",
    "shard",
    "job_id",
)
"""index: place among all references, from 0. source: where the reference stands. image: the
reference. state: succeeded, failed or published. caption: the best. score, mean_logprob: its own.
alternatives: the texts of further captions. code, message: of what failed. attempts: tries begun.
width, height, format, sha256: of the file as it was fetched. shard: the file that a worker wrote
the result into. job_id: of the chunk."""


def failed(
    index: int, reference: Reference, error: JobError, job_id: str | None = None, attempts: int = 0
) -> Row:
    """The row of an image without a result."""
    return _row(index, reference, JobState.FAILED.value, job_id) | {
        "code": error.code.value,
        "message": error.message,
        "attempts": attempts,
    }


def invalid(index: int, reference: Reference, sentence: str) -> Row:
    """The row of a reference that no job can ask for."""
    return failed(index, reference, JobError(code=ErrorCode.JOB_INVALID, message=sentence))


def answered(indexed: Sequence[tuple[int, Reference]], result: JobResult) -> list[Row]:
    """A row for each image of a chunk, in order, by what became of the chunk.

    Args:
        indexed: the references of the chunk's job, in the order of its images.
        result: of the chunk.
    """
    job_id = result.job_id
    if result.state is not JobState.SUCCEEDED:
        error = result.error or JobError.of(JobFailed(ErrorCode.INTERNAL_ERROR))
        return [failed(i, reference, error, job_id, result.attempts) for i, reference in indexed]
    if result.shard is not None:
        shard = {"shard": result.shard}
        return [_row(i, reference, IN_SHARD, job_id) | shard for i, reference in indexed]
    items = {item.index: item for item in result.items or ()}
    return [
        _of_item(i, reference, items.get(place), job_id)
        for place, (i, reference) in enumerate(indexed)
    ]


def counted(rows: Sequence[Row], shard_counts: Mapping[str, int] | None = None) -> Counter[str]:
    """How many rows succeeded, and how many failed by code; for rows of a shard, as its counts
    say."""
    if shard_counts is not None and any(row["state"] == IN_SHARD for row in rows):
        rows = [row for row in rows if row["state"] != IN_SHARD]
        return Counter(dict(shard_counts)) + Counter(row["code"] or row["state"] for row in rows)
    return Counter(row["code"] or row["state"] for row in rows)


def _of_item(index: int, reference: Reference, item: ItemResult | None, job_id: str) -> Row:
    if item is None or item.state is not JobState.SUCCEEDED or not item.captions:
        error = item.error if item else None
        error = error or JobError.of(JobFailed(ErrorCode.INTERNAL_ERROR))
        return failed(index, reference, error, job_id, item.attempts if item else 0)
    best, *others = item.captions
    row = _row(index, reference, JobState.SUCCEEDED.value, job_id) | {
        "caption": best.text,
        "score": best.score,
        "mean_logprob": best.mean_logprob,
        "alternatives": [caption.text for caption in others],
        "attempts": item.attempts,
    }
    if item.image is not None:
        facts = item.image
        row |= {"width": facts.width, "height": facts.height}
        row |= {"format": facts.format, "sha256": facts.sha256}
    return row


def _row(index: int, reference: Reference, state: str, job_id: str | None) -> Row:
    row: Row = dict.fromkeys(FIELDS)
    row["index"] = index
    row["source"] = reference.position
    row["image"] = spelled(reference.given[:MAX_SHOWN_CHARS])
    row["state"] = state
    row["alternatives"] = []
    row["attempts"] = 0
    row["job_id"] = job_id
    return row
