"""The reconciler: what the ledger knows of and the broker has lost is sent again.

A job can be in the ledger and nowhere else: its producer died between recording and sending it,
or a crash of Redis took the last moments of the queue with it. Queues are first in, first out: a
job that is older than all that wait was taken from its queue, or was never in it. If nobody
holds it, and it does not wait for its moment, it is lost. A backlog, however deep and however
old, is never sent again; only what is missing from it is.

All moments are milliseconds of the results store's clock, whatever the clocks of producers say.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from producer.contract import JobFailed
from producer.errors import BrokerUnavailable
from producer.ledger import Ledger
from producer.wire import WireJob
from worker.backlog import Backlog, oldest_ms
from worker.lock import Lock
from worker.rabbit import RabbitQueues

log = logging.getLogger(__name__)

EVERY_S = 30.0
GRACE_MS = 60_000
"""An event this recent says that the job is on its way."""

MARGIN_MS = 60_000
"""How long a producer may take from recording a job to sending its message."""

PAGE = 1_000
MAX_LOOKED_AT = 20_000
"""Open jobs that one pass looks at in one queue."""

Send = Callable[[WireJob, str, int], None]
"""(job, queue, attempt): sends the message again, the job as it was recorded; whether it is genuine
its worker finds out. May raise anything: it and those that were to follow are left for later."""

_CLAIM = """
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return false end
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'queued' and state ~= 'running' then
    redis.call('ZREM', KEYS[2], KEYS[1])
    return false
end
if redis.call('ZSCORE', KEYS[2], KEYS[1]) ~= ARGV[2] then return false end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000), KEYS[1])
return redis.call('HMGET', KEYS[1], 'task', 'job', 'attempt')
"""
"""The right to send one job, given while the lock's token is ours and nothing has happened to the
job since it was judged: so a reconciler that slept with the lock in its hand sends nothing."""


@dataclass(frozen=True)
class Open:
    """A job that has not ended, and when something last happened to it."""

    key: str
    touched: str
    """Milliseconds, as Redis spells them."""

    @property
    def touched_ms(self) -> float:
        """The same as a number."""
        return float(self.touched)


def lost(
    candidates: Mapping[str, float],
    oldest: float,
    elsewhere: Callable[[], set[str]],
    now_ms: float,
    grace_ms: float = GRACE_MS,
) -> set[str]:
    """Which jobs the broker has lost.

    Args:
        candidates: open jobs of one queue by id, with the moment of their last event.
        oldest: when the oldest job that waits there was submitted; see `backlog.oldest_ms`.
        elsewhere: those that are delayed, in flight, or wait all the same; asked only when it
            matters.
        now_ms: this moment.
        grace_ms: how long after an event a job is surely on its way.
    """
    before_ms = min(now_ms - grace_ms, oldest - MARGIN_MS)
    missing = {job_id for job_id, touched_ms in candidates.items() if touched_ms < before_ms}
    return missing - elsewhere() if missing else set()


class Reconciler:
    """Compares ledger and broker every `every_s` seconds, in one worker of all at a time.

    A job is sent again when two passes in a row find it lost: between two places a message is seen
    in neither.

    Args:
        ledger: where records lie.
        results: client of the results store's Redis, with `decode_responses`.
        backlog: the broker.
        send: sends a message again.
        grace_ms: see `lost`.
        told: hears how many jobs each pass has sent again; None, if it has failed.
    """

    def __init__(
        self,
        ledger: Ledger,
        results: redis.Redis,
        backlog: Backlog | RabbitQueues,
        send: Send,
        *,
        every_s: float = EVERY_S,
        grace_ms: float = GRACE_MS,
        told: Callable[[int | None], object] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._results = results
        self._backlog = backlog
        self._send = send
        self._every_s = every_s
        self._grace_ms = grace_ms
        self._told = told
        self._lock = Lock(results, ledger.lock_key(), max(10.0, 4 * every_s))
        self._suspects: set[str] = set()
        self._claim = results.register_script(_CLAIM)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """End after the job that is being sent, and leave the lock to another worker."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(5)
        with suppress(redis.RedisError):  # its life ends by itself
            self._lock.release()

    def run_once(self) -> int:
        """One pass, if no other worker is at it; how many jobs were sent again.

        Raises:
            redis.RedisError: a Redis cannot be reached.
        """
        if not self._lock.take():
            self._suspects = set()
            return 0
        queues: Any = self._results.smembers(self._ledger.open_key())
        found = {queue: self._lost(queue) for queue in queues}
        before = self._suspects
        self._suspects = {one.key for each in found.values() for one in each}
        again = [(one, queue) for queue in found for one in found[queue] if one.key in before]
        return self._send_again(again)

    def _lost(self, queue: str) -> list[Open]:
        oldest = self._oldest_ms(queue)
        seconds, microseconds = self._results.time()
        now_ms = seconds * 1_000 + microseconds / 1_000
        jobs = self._open_before(queue, min(now_ms - self._grace_ms, oldest - MARGIN_MS))
        by_id = {self._ledger.job_id_of_key(job.key): job for job in jobs}

        def elsewhere() -> set[str]:
            held = self._backlog.delayed(list(by_id)) | self._backlog.in_flight()
            if held >= set(by_id):  # jobs that take long are no reason to search a queue
                return held
            return held | self._backlog.waiting(queue)

        touched = {job_id: job.touched_ms for job_id, job in by_id.items()}
        missing = lost(touched, oldest, elsewhere, now_ms, self._grace_ms)
        return [job for job_id, job in by_id.items() if job_id in missing]  # the oldest first

    def _oldest_ms(self, queue: str) -> float:
        waiting = self._backlog.next_in_line(queue)
        known = []
        for ids in waiting:
            with self._results.pipeline(transaction=False) as pipeline:
                for job_id in ids:
                    pipeline.hget(self._ledger.key(job_id), "opened_ms")
                known.append([float(ms) if ms else None for ms in pipeline.execute()])
        return oldest_ms(known)

    def _open_before(self, queue: str, before_ms: float) -> list[Open]:
        jobs: list[Open] = []
        index = self._ledger.open_key(queue)
        while len(jobs) < MAX_LOOKED_AT:
            page: Any = self._results.zrange(
                index,
                "-inf",
                f"({before_ms}",
                byscore=True,
                offset=len(jobs),
                num=PAGE,
                withscores=True,
                score_cast_func=lambda score: score,
            )
            jobs += [Open(key, _spelled(score)) for key, score in page]
            if len(page) < PAGE:
                break
        return jobs

    def _send_again(self, judged: Sequence[tuple[Open, str]]) -> int:
        sent = 0
        for one, queue in judged:
            if self._closed.is_set():
                break
            if (claimed := self._claimed(one, queue)) is None:
                continue
            job, attempt = claimed
            try:
                self._send(job, queue, attempt)
            except Exception as exc:  # noqa: BLE001 - whatever the broker's library raises
                log.warning("lost jobs cannot be sent again, %s first: %s", job.job_id, exc)
                break
            log.info("job %s is sent again", job.job_id)
            sent += 1
        if sent:
            log.warning("the broker had lost jobs: %s sent again", sent)
        return sent

    def _claimed(self, one: Open, queue: str) -> tuple[WireJob, int] | None:
        keys = [one.key, self._ledger.open_key(queue), self._lock.key]
        claimed: Any = self._claim(keys, [self._lock.token, one.touched])
        if claimed is None:
            return None
        task, text, attempt = claimed
        try:
            job = WireJob.read(task, text)
        except JobFailed as exc:
            log.info("lost job %s is of a contract unknown here: %s", one.key, exc)
            return None
        if job.job_id != self._ledger.job_id_of_key(one.key):
            log.warning("lost job %s is recorded under another's id", one.key)
            return None
        return job, max(1, int(attempt or 1))

    def _loop(self) -> None:
        away = False
        while not self._closed.wait(self._every_s):
            try:
                self._told(self.run_once())
                away = False
            except (redis.RedisError, BrokerUnavailable) as exc:
                log.log(logging.DEBUG if away else logging.WARNING, "no reconciling: %s", exc)
                away = True
                self._told(None)
            except Exception:
                log.exception("reconciling failed; the next pass goes on")
                self._told(None)


def _spelled(score: Any) -> str:
    """A score as a script reads it: milliseconds are whole."""
    return str(int(float(score)))
