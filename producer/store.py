"""The results store: one record per job, of which the first terminal state is kept.

The producer writes a record before it sends the message, the worker when it starts and when it
ends. `MemoryStore` is the twin of `RedisStore` (producer/redis_store.py); one suite tests both.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from producer.contract import Job, JobResult, JobState, utcnow
from producer.errors import StoreFull, StoreUnavailable
from producer.wire import WireJob

__all__ = [
    "Delivered",
    "MemoryStore",
    "Record",
    "Store",
    "StoreFull",
    "StoreUnavailable",
    "still_missing",
]


MAX_HISTORY = 20
"""Deliveries of a job that its record names; older ones are forgotten."""


class Delivered(BaseModel):
    """One delivery of a job to a worker, which may have died of it. `attempt` is from 1."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    worker: str
    attempt: int


class Record(BaseModel):
    """What is known of a job. `job` is its JSON text, None when a plain Celery client sent it."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    task: str
    state: JobState
    job: str | None = None
    result: JobResult | None = None
    created_at: datetime
    started_at: datetime | None = None
    worker: str | None = None
    attempt: int = 0
    history: tuple[Delivered, ...] = ()

    def deliveries(self, attempt: int) -> int:
        """How often an attempt has been delivered: more than once where its worker died."""
        return sum(one.attempt == attempt for one in self.history)


class Store(Protocol):
    """Keeps records for a bounded time; every change is atomic.

    Every method raises StoreUnavailable when the store cannot be reached within its time-outs
    and StoreFull when it has no memory left to write.
    """

    def create(self, job: Job) -> Record | None:
        """Write a queued record of a job, which has an id, unless that id is known.

        Returns:
            None when the job is new, also when this very submission (the same JSON text) was
            written before and its answer lost; else the record there is, left as it was.
        """

    def create_many(self, jobs: Sequence[Job]) -> list[Record | None]:
        """`create` for each job, in the same order."""

    def start(
        self,
        job_id: str,
        task: str,
        attempt: int,
        worker: str,
        at: datetime | None = None,
        only_first: bool = False,
    ) -> Record:
        """Mark a job as running and count this delivery, creating the record when there is none.

        A call that is repeated because its answer was lost says the same `at`, and counts once.

        Args:
            at: the moment, this one unless given; the record's `started_at` if it is counted.
            only_first: a delivery of an attempt that has been delivered before is not counted.

        Returns:
            The record as it now is; left as it was when the job has ended, is in a later attempt
            already, or has been delivered before and `only_first` was asked for.
        """

    def return_delivery(self, job_id: str, attempt: int) -> None:
        """Undo the latest `start` of an attempt: its message goes back to the queue, and that it
        was delivered says nothing against the job. A job that has ended stays as it is."""

    def finish(self, result: JobResult, letter: Mapping[str, str] | None = None) -> JobResult:
        """Write a terminal state, set the record's life and tell those who wait.

        With `letter`, a dead letter of these fields and of the job's `deliveries` (its history as
        JSON) is written in the same step, if this is the first terminal state.

        Returns:
            The result that is kept: the earlier one when the job had ended before.

        Raises:
            ValueError: the state is not a terminal one.
        """

    def get(self, job_id: str) -> Record | None:
        """The record, or None when there is none (any more)."""

    def forget(self, *jobs: Job) -> None:
        """Undo `create` of these submissions, whose messages could not be sent.

        A record that has left the queued state, or that another submission of the same id wrote,
        stays.
        """

    def wait(self, job_ids: Iterable[str], timeout_s: float) -> Iterator[JobResult]:
        """Yield the results of these jobs as they end, each once; ids not known yet may come.

        Raises:
            TimeoutError: some are missing after `timeout_s` seconds (math.inf: never).
            StoreUnavailable: the store was not there to begin with; later outages are waited out.
        """

    def close(self) -> None:
        """Release the connections."""


def still_missing(missing: int, timeout_s: float) -> TimeoutError:
    """The error of a wait that ended before `missing` of its jobs did."""
    jobs = "1 job has" if missing == 1 else f"{missing} jobs have"
    return TimeoutError(f"{jobs} not ended within {timeout_s:g} s.")


def checked_terminal(result: JobResult) -> JobResult:
    """The result itself.

    Raises:
        ValueError: its state is not terminal.
    """
    if not result.state.terminal:
        raise ValueError(f"{result.state} is not a terminal state")
    return result


def checked_id(job: Job | WireJob) -> str:
    """The job's id.

    Raises:
        ValueError: it has none.
    """
    if job.job_id is None:
        raise ValueError("a job needs an id before it is recorded")
    return job.job_id


@dataclass
class _Entry:
    record: Record
    expires_s: float


class MemoryStore:
    """A `Store` in this process's memory, for tests and single-process use.

    `clock_s` is a monotonic clock in seconds; it ages records, not waits.
    """

    def __init__(
        self,
        result_ttl_s: float = 86_400,
        queued_ttl_s: float = 604_800,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._result_ttl_s = result_ttl_s
        self._queued_ttl_s = queued_ttl_s
        self._clock_s = clock_s
        self._entries: dict[str, _Entry] = {}
        self._changed = threading.Condition()
        self.letters: list[dict[str, str]] = []

    def create(self, job: Job) -> Record | None:
        """See `Store.create`."""
        job_id, text = checked_id(job), job.model_dump_json()
        with self._changed:
            if (known := self._get(job_id)) is not None:
                return None if known.job == text else known
            created_at = job.submitted_at or utcnow()
            self._put(
                Record(
                    job_id=job_id,
                    task=job.task,
                    state=JobState.QUEUED,
                    job=text,
                    created_at=created_at,
                ),
                self._queued_ttl_s,
            )
            return None

    def create_many(self, jobs: Sequence[Job]) -> list[Record | None]:
        """See `Store.create_many`."""
        return [self.create(job) for job in jobs]

    def start(
        self,
        job_id: str,
        task: str,
        attempt: int,
        worker: str,
        at: datetime | None = None,
        only_first: bool = False,
    ) -> Record:
        """See `Store.start`."""
        with self._changed:
            now = at or utcnow()
            record = self._get(job_id) or Record(
                job_id=job_id, task=task, state=JobState.QUEUED, created_at=now
            )
            if record.state.terminal or record.attempt > attempt:
                return record
            delivered = Delivered(at=now, worker=worker, attempt=attempt)
            history = record.history
            if delivered not in history[-1:]:
                if only_first and record.deliveries(attempt):
                    return record
                history = (*history, delivered)[-MAX_HISTORY:]
            started = {
                "state": JobState.RUNNING,
                "started_at": now,
                "worker": worker,
                "attempt": attempt,
                "history": history,
            }
            return self._put(record.model_copy(update=started), self._queued_ttl_s)

    def return_delivery(self, job_id: str, attempt: int) -> None:
        """See `Store.return_delivery`."""
        with self._changed:
            record = self._get(job_id)
            if record is None or record.state.terminal or not record.deliveries(attempt):
                return
            latest = max(i for i, one in enumerate(record.history) if one.attempt == attempt)
            history = (*record.history[:latest], *record.history[latest + 1 :])
            returned = {"state": JobState.QUEUED, "history": history}
            self._put(record.model_copy(update=returned), self._queued_ttl_s)

    def finish(self, result: JobResult, letter: Mapping[str, str] | None = None) -> JobResult:
        """See `Store.finish`; the letters are kept in `letters`."""
        job_id = checked_terminal(result).job_id
        with self._changed:
            record = self._get(job_id) or Record(
                job_id=job_id, task=result.task, state=JobState.QUEUED, created_at=utcnow()
            )
            if record.result is not None:
                return record.result
            ended = {"state": result.state, "result": result, "attempt": result.attempts}
            self._put(record.model_copy(update=ended), self._result_ttl_s)
            if letter is not None:
                history = [one.model_dump(mode="json") for one in record.history]
                self.letters.append({**letter, "deliveries": json.dumps(history)})
            self._changed.notify_all()
            return result

    def get(self, job_id: str) -> Record | None:
        """See `Store.get`."""
        with self._changed:
            return self._get(job_id)

    def forget(self, *jobs: Job) -> None:
        """See `Store.forget`."""
        with self._changed:
            for job in jobs:
                record = self._get(job_id := checked_id(job))
                if record is None or record.state is not JobState.QUEUED:
                    continue
                if record.job == job.model_dump_json():
                    del self._entries[job_id]

    def wait(self, job_ids: Iterable[str], timeout_s: float) -> Iterator[JobResult]:
        """See `Store.wait`."""
        missing = dict.fromkeys(job_ids)
        deadline_s = time.monotonic() + timeout_s
        while missing:
            with self._changed:
                done = self._done(missing)
                remaining_s = deadline_s - time.monotonic()
                if not done and remaining_s <= 0:
                    raise still_missing(len(missing), timeout_s)
                if not done:
                    self._changed.wait(min(remaining_s, threading.TIMEOUT_MAX))
                    continue
            for result in done:
                del missing[result.job_id]
                yield result

    def close(self) -> None:
        """See `Store.close`."""

    def _done(self, job_ids: Iterable[str]) -> list[JobResult]:
        records = (self._get(job_id) for job_id in job_ids)
        return [record.result for record in records if record is not None and record.result]

    def _get(self, job_id: str) -> Record | None:
        entry = self._entries.get(job_id)
        if entry is not None and entry.expires_s <= self._clock_s():
            del self._entries[job_id]
            return None
        return entry.record if entry else None

    def _put(self, record: Record, ttl_s: float) -> Record:
        self._entries[record.job_id] = _Entry(record, self._clock_s() + ttl_s)
        return record
