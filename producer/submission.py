"""What submitting and cancelling mean, whoever does the waiting; shared by both clients."""

import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime

from producer.contract import (
    MAX_MESSAGE_BYTES,
    ErrorCode,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    parse_job,
    public_uri,
    utcnow,
)
from producer.store import Record

CHUNK = 500
"""Jobs recorded and sent in one go."""

RESEND_AFTER_S = 60
"""A job that is queued for longer may have lost its message: its producer died before sending."""


def prepared(job: Job) -> Job:
    """The job as it is sent: with an id, and the moment of this submission.

    Raises:
        JobFailed: job_invalid, when its JSON text is larger than MAX_MESSAGE_BYTES.
    """
    job_id = job.job_id or uuid.uuid4().hex
    job = job.model_copy(update={"job_id": job_id, "submitted_at": utcnow()})
    size = len(job.model_dump_json().encode())
    if size > MAX_MESSAGE_BYTES:
        raise JobFailed(
            ErrorCode.JOB_INVALID,
            f"The job is {size} bytes of JSON; at most {MAX_MESSAGE_BYTES} are accepted.",
        )
    return job


def chunks(jobs: Iterable[Job]) -> list[list[Job]]:
    """The jobs as they are sent, CHUNK at a time, in order.

    Raises:
        JobFailed: see `prepared`.
    """
    ready = [prepared(job) for job in jobs]
    return [ready[begin : begin + CHUNK] for begin in range(0, len(ready), CHUNK)]


def to_send(jobs: Sequence[Job], known: Sequence[Record | None], now: datetime) -> list[Job]:
    """The jobs whose messages are to be sent, each id once, in order.

    A job without a known record is sent. One that is known is sent again, as it was recorded,
    when it is still queued after RESEND_AFTER_S; should its message have been there all along,
    the duplicate is harmless, because the first terminal state is kept.

    Args:
        jobs: as submitted now.
        known: the record each of them had before, as `Store.create_many` returns them.
        now: the present moment, timezone-aware.
    """
    sent: dict[str | None, Job] = {}
    for job, record in zip(jobs, known, strict=True):
        if record is None:
            sent[job.job_id] = job
        elif _overdue(record, now) and record.job is not None:
            with suppress(JobFailed):  # recorded by a newer producer: it is left to such ones
                sent[job.job_id] = parse_job(record.task, record.job)
    return list(sent.values())


def _overdue(record: Record, now: datetime) -> bool:
    age_s = (now - record.created_at).total_seconds()
    return record.state is JobState.QUEUED and age_s > RESEND_AFTER_S


def cancellation(record: Record) -> JobResult:
    """The result that cancels a job which has not ended."""
    image_ref = public_uri(parse_job(record.task, record.job).image) if record.job else None
    return JobResult(
        job_id=record.job_id,
        task=record.task,
        state=JobState.CANCELLED,
        attempts=record.attempt,
        image_ref=image_ref,
        error=JobError.of(JobFailed(ErrorCode.JOB_CANCELLED)),
        finished_at=utcnow(),
    )
