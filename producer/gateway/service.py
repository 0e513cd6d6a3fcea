"""What the routes of a gateway share: `request.app.state.service`."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from producer.async_client import AsyncClient
from producer.async_redis_store import AsyncRedisStore
from producer.contract import Job
from producer.gateway.accepted import Accepted
from producer.gateway.access import Access
from producer.gateway.gathering import Gathering
from producer.gateway.idempotency import Idempotency
from producer.gateway.live import Live
from producer.gateway.metrics import Metrics
from producer.gateway.settings import GatewaySettings
from producer.gateway.uploading import Uploads
from producer.presence import WorkerFacts
from producer.store import Record
from producer.submission import BATCH

T = TypeVar("T")

AT_A_TIME = 32
"""Questions to the store beside those that are gathered; it has 100 connections."""

WORKERS_FOR_S = 1.0
"""How old an answer of which workers live may be, in seconds."""


class Service:
    """Settings, client and store of one gateway process.

    `store`, `live` and `idempotency` are there once the app has started (`open`). `submitter`
    submits a prepared job and says which record it had before; `records` looks a job up: both
    gather what is asked at the same time. Any other call of the store goes through `ask`.
    """

    store: AsyncRedisStore
    live: Live
    idempotency: Idempotency

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.access = Access(settings.api_keys)
        self.accepted = Accepted(settings)
        self.uploads = Uploads(settings)
        self.client = AsyncClient(settings=settings)
        self.metrics = Metrics()
        self.metrics.streams.set_function(lambda: self.streams)
        self.streams = 0
        """Streams of events that are open."""
        self.submitter: Gathering[Job, Record | None] = Gathering(self.client.send, BATCH)
        self.records: Gathering[str, Record | None] = Gathering(self._looked_up, BATCH)
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._workers: tuple[float, Sequence[WorkerFacts]] = (float("-inf"), ())
        self._background: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin. Redis need not be there yet."""
        self.store = await self.client.open()
        self.live = Live(self.store.redis, self.store.ledger)
        self.live.start()
        self.idempotency = Idempotency(
            self.store.redis, self.store.ledger.prefix, self.settings.queued_ttl_s
        )
        self._background = [
            asyncio.create_task(self.access.keep_up()),
        ]

    async def ask(self, call: Awaitable[T]) -> T:
        """The answer of a call of the store; a bounded number are under way at a time."""
        async with self._turns:
            return await call

    async def workers(self) -> Sequence[WorkerFacts]:
        """The workers that live, as of a moment ago."""
        at_s, known = self._workers
        if time.monotonic() - at_s > WORKERS_FOR_S:
            known = await self.ask(self.store.workers())
            self._workers = time.monotonic(), known
        return known

    def leave(self) -> None:
        """The process is about to end: streams and waits end now."""
        self.live.leave()

    async def close(self) -> None:
        """Send what has come, and close the connections."""
        await self.submitter.close()
        for task in self._background:
            while not task.done():  # redis-py loses a cancellation that comes while it connects
                task.cancel()
                await asyncio.wait([task], timeout=0.1)
        await self.live.close()
        await self.client.close()

    async def _looked_up(self, job_ids: list[str]) -> Sequence[Record | None]:
        return await self.store.get_many(job_ids)
