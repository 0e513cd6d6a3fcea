"""What submitting and cancelling mean, whoever does the waiting; shared by both clients."""

import uuid
from collections.abc import Iterable, Sequence

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


def to_send(jobs: Sequence[Job], known: Sequence[Record | None]) -> list[Job]:
    """The jobs whose messages are to be sent: those without a known record, each id once, in order.

    One whose producer died between recording and sending it has a record and no message; workers
    find that and send it (worker/reconciler.py).

    Args:
        jobs: as submitted now.
        known: the record each of them had before, as `Store.create_many` returns them.
    """
    sent: dict[str | None, Job] = {}
    for job, record in zip(jobs, known, strict=True):
        if record is None:
            sent[job.job_id] = job
    return list(sent.values())


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
