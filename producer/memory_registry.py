"""What lies round the records, in this process's memory: the twin of producer/registry.py."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from producer.batch import Batch
from producer.callback import Callback
from producer.contract import JobState, utcnow
from producer.listing import (
    LISTED_JOBS,
    Page,
    Summary,
    Wanted,
    checked_cursor,
    checked_limit,
    shown,
)
from producer.presence import LIFE_S, WorkerFacts
from producer.store import Record
from producer.terms import due


@dataclass
class _Batch:
    created_at: datetime = field(default_factory=utcnow)
    opened: bool = False
    closed: bool = False
    owner: str | None = None
    callback: str = ""
    jobs: dict[str, JobState] = field(default_factory=dict)
    finished_at: datetime | None = None


class MemoryRegistry:
    """Lists, batches and workers of a MemoryStore, which is a subclass.

    Attributes:
        told: callbacks that came to be due, as (job or batch id, as records keep it).
    """

    def __init__(
        self, clock_s: Callable[[], float] = time.monotonic, listed_jobs: int = LISTED_JOBS
    ) -> None:
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._listed_jobs = listed_jobs
        self._listed: dict[str, int] = {}
        self._number = 0
        self._batches: dict[str, _Batch] = {}
        self._workers: dict[str, tuple[WorkerFacts, float]] = {}
        self.told: list[tuple[str, str]] = []

    def _get(self, job_id: str) -> Record | None:
        raise NotImplementedError

    def list(
        self,
        *,
        state: JobState | None = None,
        owner: str | None = None,
        batch_id: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Page:
        """See `Store.list`."""
        wanted, end = Wanted(state, owner, batch_id), checked_cursor(before)
        with self._changed:
            found = [
                (number, record)
                for job_id, number in reversed(self._listed.items())
                if (not end or number < int(end))
                and (record := self._get(job_id)) is not None
                and wanted.takes(record)
            ]
        page = found[: checked_limit(limit)]
        more = len(found) > len(page)
        return Page([_summary(one) for _, one in page], str(page[-1][0]) if more else None)

    def open_batch(
        self, batch_id: str, callback: Callback | None = None, owner: str | None = None
    ) -> Batch:
        """See `Store.open_batch`."""
        with self._changed:
            batch = self._batches.setdefault(batch_id, _Batch())
            if not batch.opened:
                batch.opened, batch.owner = True, owner
                batch.callback = due(callback, f"batch {batch_id}") if callback else ""
            return _shown(batch_id, batch)

    def close_batch(self, batch_id: str) -> Batch | None:
        """See `Store.close_batch`."""
        with self._changed:
            if (batch := self._batches.get(batch_id)) is None:
                return None
            batch.closed = True
            self._settle(batch_id, batch)
            return _shown(batch_id, batch)

    def batch(self, batch_id: str) -> Batch | None:
        """See `Store.batch`."""
        with self._changed:
            batch = self._batches.get(batch_id)
            return None if batch is None else _shown(batch_id, batch)

    def present(self, facts: WorkerFacts, life_s: float = LIFE_S) -> None:
        """See `Store.present`."""
        with self._changed:
            self._workers[facts.name] = facts, self._clock_s() + life_s

    def absent(self, name: str) -> None:
        """See `Store.absent`."""
        with self._changed:
            self._workers.pop(name, None)

    def workers(self) -> Sequence[WorkerFacts]:
        """See `Store.workers`."""
        with self._changed:
            now_s = self._clock_s()
            living = [facts for facts, until_s in self._workers.values() if until_s > now_s]
        return sorted(living, key=lambda facts: facts.name)

    def _enlist(self, job_id: str) -> None:
        self._listed.pop(job_id, None)
        self._number += 1
        self._listed[job_id] = self._number
        while len(self._listed) > self._listed_jobs:
            del self._listed[next(iter(self._listed))]

    def _count(self, batch_id: str | None, job_id: str, state: JobState | None) -> None:
        """Count a job of a batch in a state, once; in none when it is no job of it any more."""
        if batch_id is None:
            return
        batch = self._batches.setdefault(batch_id, _Batch())
        if state is None:
            batch.jobs.pop(job_id, None)
        else:
            batch.jobs[job_id] = state
        self._settle(batch_id, batch)

    def _settle(self, batch_id: str, batch: _Batch) -> None:
        ended = batch.closed and all(state.terminal for state in batch.jobs.values())
        if ended and batch.finished_at is None:
            batch.finished_at = utcnow()
            if batch.callback:
                self.told.append((batch_id, batch.callback))


def _shown(batch_id: str, batch: _Batch) -> Batch:
    states = list(batch.jobs.values())
    return Batch(
        batch_id=batch_id,
        owner=batch.owner,
        closed=batch.closed,
        total=len(states),
        counts={state: states.count(state) for state in JobState},
        created_at=batch.created_at,
        finished_at=batch.finished_at,
    )


def _summary(record: Record) -> Summary:
    result = record.result
    image_ref = result.image_ref if result and not record.job else shown(record.job or "")
    return Summary(
        job_id=record.job_id,
        task=record.task,
        state=record.state,
        created_at=record.created_at,
        finished_at=result.finished_at if result else None,
        image_ref=image_ref,
        code=result.error.code if result and result.error else None,
        owner=record.owner,
        batch_id=record.batch_id,
    )
