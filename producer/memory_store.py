"""The results store in this process's memory."""

import builtins
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from producer.contract import ItemResult, Job, JobResult, JobState, utcnow
from producer.listing import LISTED_JOBS
from producer.memory_registry import MemoryRegistry
from producer.memory_watch import MemoryWatch
from producer.store import (
    MAX_HISTORY,
    Delivered,
    Record,
    Settled,
    checked_id,
    checked_terminal,
    still_missing,
)
from producer.terms import Terms


@dataclass
class _Entry:
    record: Record
    callback: str
    expires_s: float


class MemoryStore(MemoryRegistry):
    """A `Store` in this process's memory, for tests and single-process use.

    `clock_s` is a monotonic clock in seconds; it ages records, not waits.

    Attributes:
        letters: dead letters, the oldest first.
        events: what was told of deliveries, as (job id, {state, attempt, worker}).
        stream: the stream of results, if that is wanted.
    """

    def __init__(
        self,
        result_ttl_s: float = 86_400,
        queued_ttl_s: float = 604_800,
        clock_s: Callable[[], float] = time.monotonic,
        listed_jobs: int = LISTED_JOBS,
        result_stream: int = 0,
    ) -> None:
        super().__init__(clock_s, listed_jobs)
        self._result_ttl_s = result_ttl_s
        self._queued_ttl_s = queued_ttl_s
        self._entries: dict[str, _Entry] = {}
        self._settled: dict[str, dict[int, ItemResult]] = {}
        self.letters: builtins.list[dict[str, str]] = []
        self.events: builtins.list[tuple[str, dict[str, Any]]] = []
        self.stream: deque[JobResult] = deque(maxlen=result_stream)

    def create(self, job: Job) -> Record | None:
        """See `Store.create`."""
        job_id, text = checked_id(job), job.model_dump_json()
        with self._changed:
            known = self._get(job_id)
            if known is not None and not _of_nothing_known(known):
                return None if known.job == text else known
            self._settled.pop(job_id, None)
            new = Record(
                job_id=job_id,
                task=job.task,
                state=JobState.QUEUED,
                job=text,
                created_at=job.submitted_at or utcnow(),
            )
            self._record(new, Terms.of(job))
            return None

    def create_many(self, jobs: Sequence[Job]) -> builtins.list[Record | None]:
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
        terms: Terms | None = None,
    ) -> Record:
        """See `Store.start`."""
        with self._changed:
            now = at or utcnow()
            record = self._get(job_id) or self._record(
                Record(job_id=job_id, task=task, state=JobState.QUEUED, created_at=now), terms
            )
            if record.state.terminal or record.attempt > attempt:
                return record
            delivered = Delivered(at=now, worker=worker, attempt=attempt)
            history = record.history
            if delivered not in history[-1:]:
                if only_first and record.deliveries(attempt):
                    return record
                history = (*history, delivered)[-MAX_HISTORY:]
                self._tell(job_id, JobState.RUNNING, delivered)
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
            self._tell(job_id, JobState.QUEUED, record.history[latest])
            returned = {"state": JobState.QUEUED, "history": history}
            self._put(record.model_copy(update=returned), self._queued_ttl_s)

    def settle(self, job_id: str, items: Sequence[ItemResult] = ()) -> Settled:
        """See `Store.settle`."""
        with self._changed:
            record = self._get(job_id)
            if record is None or record.result is not None:
                return Settled({}, record.result if record else None)
            kept = self._settled.setdefault(job_id, {})
            for item in items:
                kept.setdefault(item.index, item)
            return Settled(dict(kept))

    def finish(
        self,
        result: JobResult,
        letter: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> JobResult:
        """See `Store.finish`; the letters are kept in `letters`."""
        job_id = checked_terminal(result).job_id
        with self._changed:
            record = self._get(job_id) or self._record(
                Record(job_id=job_id, task=result.task, state=JobState.QUEUED, created_at=utcnow()),
                terms,
            )
            if record.result is not None:
                return record.result
            ended = {"state": result.state, "result": result, "attempt": result.attempts}
            self._put(record.model_copy(update=ended), self._result_ttl_s)
            if callback := self._entries[job_id].callback:
                self.told.append((job_id, callback))
            self.stream.append(result)
            if letter is None:
                self._settled.pop(job_id, None)
            else:
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
                    self._listed.pop(job_id, None)
                    self._count(record.batch_id, job_id, None)

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

    def watch(self) -> MemoryWatch:
        """See `Store.watch`."""
        return MemoryWatch(self.ended)

    def ended(self, job_ids: Collection[str], timeout_s: float) -> builtins.list[JobResult]:
        """The results that these jobs have; waits for the first one for so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._done(job_ids), timeout_s)
            return self._done(job_ids)

    def close(self) -> None:
        """See `Store.close`."""

    def _done(self, job_ids: Iterable[str]) -> builtins.list[JobResult]:
        records = (self._get(job_id) for job_id in job_ids)
        return [record.result for record in records if record is not None and record.result]

    def _get(self, job_id: str) -> Record | None:
        entry = self._entries.get(job_id)
        if entry is not None and entry.expires_s <= self._clock_s():
            del self._entries[job_id]
            self._settled.pop(job_id, None)
            return None
        return entry.record if entry else None

    def _record(self, new: Record, terms: Terms | None) -> Record:
        terms = terms or Terms()
        named = {"owner": terms.owner or None, "batch_id": terms.batch_id or None}
        self._enlist(new.job_id)
        self._entries[new.job_id] = _Entry(new, terms.callback, 0)
        return self._put(new.model_copy(update=named), self._queued_ttl_s)

    def _put(self, record: Record, ttl_s: float) -> Record:
        entry = self._entries[record.job_id]
        entry.record, entry.expires_s = record, self._clock_s() + ttl_s
        self._count(record.batch_id, record.job_id, record.state)
        return record

    def _tell(self, job_id: str, state: JobState, delivered: Delivered) -> None:
        event = {"state": state.value, "attempt": delivered.attempt, "worker": delivered.worker}
        self.events.append((job_id, event))


def _of_nothing_known(record: Record) -> bool:
    failed = record.state is JobState.FAILED
    return failed and record.attempt == 0 and record.job is None
