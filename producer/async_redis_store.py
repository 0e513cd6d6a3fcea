"""The results store in Redis, for asyncio."""

import asyncio
import builtins
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from producer.batch import Batch
from producer.call import Call
from producer.callback import Callback
from producer.contract import ItemResult, Job, JobResult, JobState
from producer.envelope import Sent
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
from producer.redis_at import async_redis_at
from producer.registry import Registry
from producer.store import Record, Settled
from producer.terms import Terms
from producer.waiting import Waiting

T = TypeVar("T")


class AsyncRedisStore:
    """`RedisStore` with coroutines: same arguments, records and errors.

    `redis` are its connections, up to 100 at a time, for what else lies there; `ledger` knows its
    keys and channels.
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
        self.ledger = Ledger(
            result_ttl_s, queued_ttl_s, prefix, dead_max, dead_ttl_s, listed_jobs, result_stream
        )
        self._registry = Registry(queued_ttl_s, prefix)
        self.redis = async_redis_at(
            url,
            decode_responses=True,
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=min(CONNECT_TIMEOUT_S, socket_timeout_s),
            socket_keepalive=True,
            health_check_interval=HEALTH_CHECK_INTERVAL_S,
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        )
        self._script = cache(self.redis.register_script)

    async def create(self, job: Job) -> Record | None:
        """See `Store.create`."""
        return await self._run(self.ledger.create(job))

    async def create_many(self, jobs: Sequence[Job]) -> builtins.list[Record | None]:
        """See `Store.create_many`: one round trip for all."""
        return await self._run_all([self.ledger.create(job) for job in jobs])

    async def send_many(
        self, jobs: Sequence[Job], sent: Sequence[Sent]
    ) -> builtins.list[Record | None]:
        """`create_many`, and in the same steps the messages of those that are new: where the broker
        is this Redis."""
        calls = [self.ledger.create(job, one) for job, one in zip(jobs, sent, strict=True)]
        return await self._run_all(calls)

    async def start(
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
        call = self.ledger.start(job_id, task, attempt, worker, at, only_first, terms)
        return await self._run(call)

    async def return_delivery(self, job_id: str, attempt: int) -> None:
        """See `Store.return_delivery`."""
        await self._run(self.ledger.return_delivery(job_id, attempt))

    async def settle(self, job_id: str, items: Sequence[ItemResult] = ()) -> Settled:
        """See `Store.settle`."""
        return await self._run(self.ledger.settle(job_id, items))

    async def finish(
        self,
        result: JobResult,
        letter: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> JobResult:
        """See `Store.finish`."""
        return await self._run(self.ledger.finish(result, letter, terms))

    async def get(self, job_id: str) -> Record | None:
        """See `Store.get`."""
        return await self._run(self.ledger.get(job_id))

    async def get_many(self, job_ids: Sequence[str]) -> builtins.list[Record | None]:
        """`get` for each, in the same order: one round trip for all."""
        return await self._run_all([self.ledger.get(job_id) for job_id in job_ids])

    async def trace(self, traceparents: Mapping[str, str]) -> None:
        """As `RedisStore.trace`."""
        await self._run_all([self.ledger.trace(*one) for one in traceparents.items()])

    async def trace_batch(self, batch_id: str, traceparent: str) -> None:
        """As `trace`, for a batch."""
        await self._run(self._registry.trace_batch(batch_id, traceparent))

    async def forget(self, *jobs: Job) -> None:
        """See `Store.forget`."""
        await self._run_all([self.ledger.forget(job) for job in jobs])

    async def wait(
        self, job_ids: Iterable[str], timeout_s: float
    ) -> AsyncGenerator[JobResult, None]:
        """See `Store.wait`."""
        waiting = Waiting(self.ledger, job_ids, timeout_s)
        while waiting:
            try:
                async with aclosing(self.redis.pubsub()) as channels:
                    with typed_errors():
                        await channels.subscribe(*waiting.channels())
                    while waiting:
                        for result in await self._next(waiting, channels):
                            yield result
            except StoreUnavailable as exc:
                await asyncio.sleep(waiting.interrupted(exc))

    async def list(
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
            page = await self._run(call)
            found = Page(found.records + page.records, page.next)
            if found.next is None or len(found.records) >= limit:
                return found

    async def open_batch(
        self, batch_id: str, callback: Callback | None = None, owner: str | None = None
    ) -> Batch:
        """See `Store.open_batch`."""
        return await self._run(self._registry.open_batch(batch_id, callback, owner))

    async def close_batch(self, batch_id: str) -> Batch | None:
        """See `Store.close_batch`."""
        return await self._run(self._registry.close_batch(batch_id))

    async def batch(self, batch_id: str) -> Batch | None:
        """See `Store.batch`."""
        return await self._run(self._registry.batch(batch_id))

    async def present(self, facts: WorkerFacts, life_s: float = LIFE_S) -> None:
        """See `Store.present`."""
        await self._run(self._registry.present(facts, life_s))

    async def absent(self, name: str) -> None:
        """See `Store.absent`."""
        await self._run(self._registry.absent(name))

    async def workers(self) -> Sequence[WorkerFacts]:
        """See `Store.workers`."""
        return await self._run(self._registry.workers())

    async def close(self) -> None:
        """See `Store.close`."""
        await self.redis.aclose()

    async def _next(self, waiting: Waiting, channels: PubSub) -> builtins.list[JobResult]:
        with typed_errors():
            message: dict[str, Any] | None
            message = await channels.get_message(timeout=waiting.patience_s())
            while message is not None:
                waiting.hear(message)
                message = await channels.get_message(timeout=0)
        lookups = [self.ledger.result(job_id) for job_id in waiting.due()]
        for result in await self._run_all(lookups):
            waiting.found(result)
        return waiting.arrived()

    async def _run(self, call: Call[T]) -> T:
        with typed_errors():
            reply = await self._script(call.script)(call.keys, call.args)
        return call.read(reply)

    async def _run_all(self, calls: Sequence[Call[T]]) -> builtins.list[T]:
        if not calls:
            return []
        with typed_errors():
            async with self.redis.pipeline(transaction=False) as pipeline:
                for call in calls:
                    await self._script(call.script)(call.keys, call.args, client=pipeline)
                replies = await pipeline.execute()
        return [call.read(reply) for call, reply in zip(calls, replies, strict=True)]
