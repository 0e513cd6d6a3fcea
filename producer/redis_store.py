"""The results store in Redis."""

import builtins
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import cache
from typing import TypeVar

import redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.retry import Retry

from producer.batch import Batch
from producer.call import Call
from producer.callback import Callback
from producer.contract import ItemResult, Job, JobResult, JobState
from producer.errors import StoreUnavailable
from producer.ledger import (
    CONNECT_TIMEOUT_S,
    DEAD_MAX,
    DEAD_TTL_S,
    HEALTH_CHECK_INTERVAL_S,
    SOCKET_TIMEOUT_S,
    Ledger,
    typed_errors,
)
from producer.listing import LISTED_JOBS, Page, Wanted
from producer.presence import LIFE_S, WorkerFacts
from producer.redis_at import redis_at
from producer.registry import Registry
from producer.store import Record, Settled
from producer.terms import Terms
from producer.waiting import Waiting
from producer.watch import RedisWatch, messages

T = TypeVar("T")


class RedisStore:
    """A `Store` in Redis 6.2 or later; safe to share between threads.

    Args:
        url: as `redis_at` takes it.
        result_ttl_s: life of a finished job's record, in seconds.
        queued_ttl_s: life of an unfinished job's record, in seconds.
        prefix: what all keys and channels begin with.
        socket_timeout_s: longest wait for one answer of the server, in seconds.
        dead_max: most dead letters that are kept, roughly.
        dead_ttl_s: how long they are kept, in seconds.
        listed_jobs: how many of the newest jobs can be listed.
        result_stream: most results that the stream of results keeps, roughly; 0 for no stream.
    """

    def __init__(
        self,
        url: str,
        result_ttl_s: float = 86_400,
        queued_ttl_s: float = 604_800,
        prefix: str = "captionq:",
        socket_timeout_s: float = SOCKET_TIMEOUT_S,
        dead_max: int = DEAD_MAX,
        dead_ttl_s: float = DEAD_TTL_S,
        listed_jobs: int = LISTED_JOBS,
        result_stream: int = 0,
    ) -> None:
        self._ledger = Ledger(
            result_ttl_s, queued_ttl_s, prefix, dead_max, dead_ttl_s, listed_jobs, result_stream
        )
        self._registry = Registry(queued_ttl_s, prefix)
        self._redis = redis_at(
            url,
            decode_responses=True,
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=min(CONNECT_TIMEOUT_S, socket_timeout_s),
            socket_keepalive=True,
            health_check_interval=HEALTH_CHECK_INTERVAL_S,
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        )
        self._script = cache(self._redis.register_script)

    def create(self, job: Job) -> Record | None:
        """See `Store.create`."""
        return self._run(self._ledger.create(job))

    def create_many(self, jobs: Sequence[Job]) -> builtins.list[Record | None]:
        """See `Store.create_many`: one round trip for all."""
        return self._run_all([self._ledger.create(job) for job in jobs])

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
        call = self._ledger.start(job_id, task, attempt, worker, at, only_first, terms)
        return self._run(call)

    def return_delivery(self, job_id: str, attempt: int) -> None:
        """See `Store.return_delivery`."""
        self._run(self._ledger.return_delivery(job_id, attempt))

    def settle(self, job_id: str, items: Sequence[ItemResult] = ()) -> Settled:
        """See `Store.settle`."""
        return self._run(self._ledger.settle(job_id, items))

    def finish(
        self,
        result: JobResult,
        letter: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> JobResult:
        """See `Store.finish`."""
        return self._run(self._ledger.finish(result, letter, terms))

    def get(self, job_id: str) -> Record | None:
        """See `Store.get`."""
        return self._run(self._ledger.get(job_id))

    def trace(self, traceparents: Mapping[str, str]) -> None:
        """Note which span each job was submitted in, by the jobs' ids."""
        self._run_all([self._ledger.trace(*one) for one in traceparents.items()])

    def forget(self, *jobs: Job) -> None:
        """See `Store.forget`."""
        self._run_all([self._ledger.forget(job) for job in jobs])

    def wait(self, job_ids: Iterable[str], timeout_s: float) -> Iterator[JobResult]:
        """See `Store.wait`."""
        waiting = Waiting(self._ledger, job_ids, timeout_s)
        while waiting:
            try:
                with closing(self._redis.pubsub()) as channels:  # type: ignore[no-untyped-call]
                    with typed_errors():
                        channels.subscribe(*waiting.channels())
                    while waiting:
                        yield from self._next(waiting, channels)
            except StoreUnavailable as exc:
                time.sleep(waiting.interrupted(exc))

    def watch(self) -> RedisWatch:
        """See `Store.watch`."""
        return RedisWatch(
            self._ledger,
            self._redis.pubsub,
            lambda ids: self._run_all([self._ledger.result(job_id) for job_id in ids]),
        )

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
        wanted, found = Wanted(state, owner, batch_id), Page([], before)
        while True:
            call = self._registry.listed(wanted, found.next, limit - len(found.records))
            page = self._run(call)
            found = Page(found.records + page.records, page.next)
            if found.next is None or len(found.records) >= limit:
                return found

    def open_batch(
        self, batch_id: str, callback: Callback | None = None, owner: str | None = None
    ) -> Batch:
        """See `Store.open_batch`."""
        return self._run(self._registry.open_batch(batch_id, callback, owner))

    def close_batch(self, batch_id: str) -> Batch | None:
        """See `Store.close_batch`."""
        return self._run(self._registry.close_batch(batch_id))

    def batch(self, batch_id: str) -> Batch | None:
        """See `Store.batch`."""
        return self._run(self._registry.batch(batch_id))

    def present(self, facts: WorkerFacts, life_s: float = LIFE_S) -> None:
        """See `Store.present`."""
        self._run(self._registry.present(facts, life_s))

    def absent(self, name: str) -> None:
        """See `Store.absent`."""
        self._run(self._registry.absent(name))

    def workers(self) -> Sequence[WorkerFacts]:
        """See `Store.workers`."""
        return self._run(self._registry.workers())

    def close(self) -> None:
        """See `Store.close`."""
        self._redis.close()

    def _next(self, waiting: Waiting, channels: PubSub) -> builtins.list[JobResult]:
        with typed_errors():
            for message in messages(channels, waiting.patience_s()):
                waiting.hear(message)
        for result in self._run_all([self._ledger.result(job_id) for job_id in waiting.due()]):
            waiting.found(result)
        return waiting.arrived()

    def _run(self, call: Call[T]) -> T:
        with typed_errors():
            reply = self._script(call.script)(call.keys, call.args)
        return call.read(reply)

    def _run_all(self, calls: Sequence[Call[T]]) -> builtins.list[T]:
        if not calls:
            return []
        with typed_errors(), self._redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                self._script(call.script)(call.keys, call.args, client=pipeline)
            replies = pipeline.execute()
        return [call.read(reply) for call, reply in zip(calls, replies, strict=True)]
