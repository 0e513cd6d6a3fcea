"""What submitting and cancelling mean, whoever does the waiting; shared by both clients."""

import threading
import time
import uuid
from collections.abc import Container, Iterable, Sequence

from producer.contract import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    Chunk,
    ErrorCode,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    parse_job,
    utcnow,
)
from producer.signing import Keys, Unsignable
from producer.store import Record

BATCH = 500
"""Jobs recorded and sent in one go."""


MAX_UNSENT = 100_000


def prepared(job: Job, keys: Keys | None = None) -> Job:
    """The job as it is sent: with an id, the moment of this submission, and signed if there are
    keys. (A signature that it came with would not hold for what is sent.)

    Raises:
        JobFailed: job_invalid, when its JSON text is larger than MAX_MESSAGE_BYTES, that of a
            chunk than MAX_CHUNK_BYTES, or holds a number that cannot be signed.
    """
    job_id = job.job_id or uuid.uuid4().hex
    new = {"job_id": job_id, "submitted_at": utcnow(), "signature": None}
    job = job.model_copy(update=new)
    if keys is not None:
        try:
            signature = keys.sign(job.task, job.model_dump(mode="json"), time.time())
        except Unsignable as exc:
            raise JobFailed(ErrorCode.JOB_INVALID, f"The job cannot be signed: {exc}.") from exc
        job = job.model_copy(update={"signature": signature})
    size = len(job.model_dump_json().encode())
    most = MAX_CHUNK_BYTES if isinstance(job, Chunk) else MAX_MESSAGE_BYTES
    if size > most:
        raise JobFailed(
            ErrorCode.JOB_INVALID,
            f"The job is {size} bytes of JSON; at most {most} are accepted.",
        )
    return job


def batches(jobs: Iterable[Job], keys: Keys | None = None) -> list[list[Job]]:
    """The jobs as they are sent, signed if there are keys, BATCH at a time, in order.

    Raises:
        JobFailed: see `prepared`.
    """
    ready = [prepared(job, keys) for job in jobs]
    return [ready[begin : begin + BATCH] for begin in range(0, len(ready), BATCH)]


class Unsent:
    """Ids whose submission failed and could not be undone: they may have a record and no message.

    Safe to share between threads; remembers the latest MAX_UNSENT.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[str | None, None] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Remember these."""
        with self._lock:
            self._ids |= dict.fromkeys(job.job_id for job in jobs)
            for oldest in list(self._ids)[: max(0, len(self._ids) - MAX_UNSENT)]:
                del self._ids[oldest]

    def discard(self, jobs: Iterable[Job]) -> None:
        """Forget these: they are sent, or undone."""
        with self._lock:
            for job in jobs:
                self._ids.pop(job.job_id, None)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._ids


def to_send(
    jobs: Sequence[Job], known: Sequence[Record | None], unsent: Container[str | None] = ()
) -> list[Job]:
    """The jobs whose messages are to be sent, each id once, in order: those without a known
    record, and those `unsent` that are still queued.

    One whose producer died between recording and sending it has a record and no message; workers
    find that and send it (worker/reconciler.py).

    Args:
        jobs: as submitted now.
        known: the record each of them had before, as `Store.create_many` returns them.
        unsent: see `Unsent`.
    """
    sent: dict[str | None, Job] = {}
    for job, record in zip(jobs, known, strict=True):
        if record is None or (record.state is JobState.QUEUED and job.job_id in unsent):
            sent[job.job_id] = job
    return list(sent.values())


def cancellation(record: Record) -> JobResult:
    """The result that cancels a job which has not ended."""
    image_ref = parse_job(record.task, record.job).shown if record.job else None
    return JobResult(
        job_id=record.job_id,
        task=record.task,
        state=JobState.CANCELLED,
        attempts=record.attempt,
        image_ref=image_ref,
        error=JobError.of(JobFailed(ErrorCode.JOB_CANCELLED)),
        finished_at=utcnow(),
    )
