"""The client for asyncio: every call of `Client` as a coroutine."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from producer import embedded
from producer.async_redis_store import AsyncRedisStore
from producer.contract import Job, JobResult
from producer.errors import BrokerFull, BrokerUnavailable, StoreFull, StoreUnavailable, UnknownJob
from producer.publisher import Publisher, attempt_timeout_s, pauses
from producer.settings import ProducerSettings
from producer.store import Record
from producer.submission import Unsent, batches, cancellation, to_send


@dataclass(frozen=True)
class AsyncJobHandle:
    """A job that was submitted."""

    job_id: str
    _client: "AsyncClient" = field(repr=False, compare=False)

    async def result(self, timeout_s: float = 300) -> JobResult:
        """See `Client.result`."""
        return await self._client.result(self.job_id, timeout_s)

    async def status(self) -> Record | None:
        """See `Client.status`."""
        return await self._client.status(self.job_id)

    async def cancel(self) -> JobResult:
        """See `Client.cancel`."""
        return await self._client.cancel(self.job_id)


class AsyncClient:
    """`Client` for one event loop: same arguments, meanings and errors.

    The results store is spoken to with redis.asyncio; Celery's publishing, which blocks, runs in
    a worker thread. Connections open with the first call.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        results_url: str | None = None,
        *,
        settings: ProducerSettings | None = None,
    ) -> None:
        self._settings = settings or ProducerSettings()
        self._broker_url = broker_url
        self._results_url = results_url
        self._timeout_s = self._settings.submit_timeout_s
        self._attempt_s = attempt_timeout_s(self._timeout_s)
        self._keys = self._settings.keys
        self._opening = asyncio.Lock()
        self._unsent = Unsent()
        self._open: tuple[AsyncRedisStore, Publisher] | None = None

    async def submit(self, job: Job) -> AsyncJobHandle:
        """See `Client.submit`."""
        return (await self.submit_many([job]))[0]

    async def submit_many(self, jobs: Iterable[Job]) -> list[AsyncJobHandle]:
        """See `Client.submit_many`."""
        handles: list[AsyncJobHandle] = []
        for batch in await asyncio.to_thread(batches, list(jobs), self._keys):
            try:
                await self.send(batch)
            except BrokerUnavailable as exc:
                exc.submitted = tuple(handle.job_id for handle in handles)
                raise
            handles += [AsyncJobHandle(str(job.job_id), self) for job in batch]
        return handles

    async def send(self, batch: list[Job]) -> list[Record | None]:
        """Submit up to `submission.BATCH` jobs that are prepared already (`submission.prepared`).

        Returns:
            The record each of them had before, in their order; None for the new ones.
        """
        store, publisher = await self._opened()
        deadline_s = time.monotonic() + self._timeout_s
        due = batch
        try:
            known = await self._recorded(store, batch, deadline_s)
            due = to_send(batch, known, self._unsent)
            await asyncio.to_thread(publisher.publish, due, deadline_s)
        except BrokerUnavailable as exc:
            self._unsent.add(due)
            if isinstance(exc, BrokerFull) or not isinstance(exc, StoreUnavailable):
                with suppress(StoreUnavailable):
                    await store.forget(*batch)
                    self._unsent.discard(due)
            raise
        self._unsent.discard(due)
        return known

    async def open(self) -> AsyncRedisStore:
        """The results store that this client speaks to; the first call opens it."""
        return (await self._opened())[0]

    async def result(self, job_id: str, timeout_s: float = 300) -> JobResult:
        """See `Client.result`."""
        record = await self._known(job_id)
        if record.result is not None:
            return record.result
        store, _ = await self._opened()
        async with aclosing(store.wait([job_id], timeout_s)) as results:
            return await anext(results)

    async def as_completed(
        self, jobs: Iterable[AsyncJobHandle | str], timeout_s: float = 300
    ) -> AsyncGenerator[JobResult, None]:
        """See `Client.as_completed`."""
        ids = [job.job_id if isinstance(job, AsyncJobHandle) else job for job in jobs]
        store, _ = await self._opened()
        async with aclosing(store.wait(ids, timeout_s)) as results:
            async for result in results:
                yield result

    async def status(self, job_id: str) -> Record | None:
        """See `Client.status`."""
        store, _ = await self._opened()
        return await store.get(job_id)

    async def cancel(self, job_id: str) -> JobResult:
        """See `Client.cancel`."""
        record = await self._known(job_id)
        if record.result is not None:
            return record.result
        store, _ = await self._opened()
        return await store.finish(cancellation(record))

    async def close(self) -> None:
        """See `Client.close`."""
        if self._open is not None:
            store, publisher = self._open
            self._open = None
            await store.close()
            await asyncio.to_thread(publisher.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _opened(self) -> tuple[AsyncRedisStore, Publisher]:
        async with self._opening:
            if self._open is None:
                settings = self._settings
                broker_url = self._broker_url or settings.broker_url
                if broker_url is None:
                    broker_url = await asyncio.to_thread(embedded.ensure, settings.home)
                store = AsyncRedisStore(
                    self._results_url or settings.results_url_beside(broker_url),
                    settings.result_ttl_s,
                    settings.queued_ttl_s,
                    socket_timeout_s=self._attempt_s,
                )
                publisher = await asyncio.to_thread(
                    Publisher, broker_url, self._timeout_s, settings.sentinel_master
                )
                self._open = store, publisher
            return self._open

    async def _known(self, job_id: str) -> Record:
        record = await self.status(job_id)
        if record is None:
            raise UnknownJob(job_id)
        return record

    async def _recorded(
        self, store: AsyncRedisStore, batch: list[Job], deadline_s: float
    ) -> list[Record | None]:
        further = pauses(deadline_s, self._attempt_s)
        while True:
            try:
                return await store.create_many(batch)
            except StoreUnavailable as exc:
                pause_s = None if isinstance(exc, StoreFull) else next(further, None)
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
