"""The results store in this process's memory."""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from producer.contract import ItemResult, Job, JobResult, JobState, utcnow
from producer.store import (
    MAX_HISTORY,
    Delivered,
    Record,
    Settled,
    checked_id,
    checked_terminal,
    still_missing,
)


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
        self._settled: dict[str, dict[int, ItemResult]] = {}
        self._changed = threading.Condition()
        self.letters: list[dict[str, str]] = []

    def create(self, job: Job) -> Record | None:
        """See `Store.create`."""
        job_id, text = checked_id(job), job.model_dump_json()
        with self._changed:
            known = self._get(job_id)
            if known is not None and not _of_nothing_known(known):
                return None if known.job == text else known
            self._settled.pop(job_id, None)
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

    def watch(self) -> "MemoryWatch":
        """See `Store.watch`."""
        return MemoryWatch(self)

    def ended(self, job_ids: Collection[str], timeout_s: float) -> list[JobResult]:
        """The results that these jobs have; waits for the first one for so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._done(job_ids), timeout_s)
            return self._done(job_ids)

    def close(self) -> None:
        """See `Store.close`."""

    def _done(self, job_ids: Iterable[str]) -> list[JobResult]:
        records = (self._get(job_id) for job_id in job_ids)
        return [record.result for record in records if record is not None and record.result]

    def _get(self, job_id: str) -> Record | None:
        entry = self._entries.get(job_id)
        if entry is not None and entry.expires_s <= self._clock_s():
            del self._entries[job_id]
            self._settled.pop(job_id, None)
            return None
        return entry.record if entry else None

    def _put(self, record: Record, ttl_s: float) -> Record:
        self._entries[record.job_id] = _Entry(record, self._clock_s() + ttl_s)
        return record


def _of_nothing_known(record: Record) -> bool:
    failed = record.state is JobState.FAILED
    return failed and record.attempt == 0 and record.job is None


class MemoryWatch:
    """A `Watch` (producer/watch.py) on a MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._missing: dict[str, None] = {}

    def add(self, job_ids: Iterable[str]) -> None:
        """See `Watch.add`."""
        self._missing |= dict.fromkeys(job_ids)

    def next(self, timeout_s: float) -> list[JobResult]:
        """See `Watch.next`."""
        if not self._missing:
            return []
        results = self._store.ended(self._missing, timeout_s)
        for result in results:
            del self._missing[result.job_id]
        return results

    def close(self) -> None:
        """See `Watch.close`."""
