"""Texts embedded, a row for each."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from producer.client import Client
from producer.contract import EmbedJob, JobError, JobFailed, JobResult
from producer.errors import ErrorCode
from producer.manifest.kinds import embedding_columns, written
from producer.manifest.rows import Holds, Row

MOST_TEXTS = 256
MOST_BYTES = 32_768
"""Of the texts of one job, which has to fit into a message."""


def columns(encoding: str) -> dict[str, Holds]:
    """The columns of these rows. text: as it was given. The others are as of images."""
    return {
        "index": "int64",
        "text": "string",
        "state": "string",
        **embedding_columns(encoding),
        "code": "string",
        "message": "string",
        "job_id": "string",
    }


def embedded(client: Client, texts: Sequence[str], encoding: Any, **fields: Any) -> list[Row]:
    """A row for each text, in order. `fields` are further ones of `EmbedJob`.

    Raises:
        pydantic.ValidationError: a text that no job can have.
        TimeoutError: no worker answered.
    """
    jobs = [EmbedJob(texts=some, encoding=encoding, **fields) for some in _portions(texts)]
    rows: list[Row] = []
    for handle, job in zip(client.submit_many(jobs), jobs, strict=True):
        result = handle.result()
        for place, text in enumerate(job.texts or ()):
            row: Row = dict.fromkeys(columns(encoding))
            row |= {"index": len(rows), "text": text, "job_id": result.job_id}
            rows.append(row | _cells(result, place))
    return rows


def _cells(result: JobResult, place: int) -> dict[str, Any]:
    if result.embeddings is not None and len(result.embeddings) > place:
        return {"state": "succeeded"} | written(result.embeddings[place])
    error = result.error or JobError.of(JobFailed(ErrorCode.INTERNAL_ERROR))
    return {"state": "failed", "code": error.code.value, "message": error.message}


def _portions(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    portion: list[str] = []
    size = 0
    for text in texts:
        bytes_more = len(json.dumps(text, ensure_ascii=False).encode())
        if portion and (len(portion) == MOST_TEXTS or size + bytes_more > MOST_BYTES):
            yield tuple(portion)
            portion, size = [], 0
        portion.append(text)
        size += bytes_more
    if portion:
        yield tuple(portion)
