"""The client for asyncio: every call of `Client` as a coroutine."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from producer import embedded
from producer.async_redis_store import AsyncRedisStore
from producer.async_sending import ByCelery, InOneStep, Sending, database_of_both
from producer.contract import Job, JobResult
from producer.errors import BrokerUnavailable, StoreUnavailable, UnknownJob
from producer.publisher import Publisher, attempt_timeout_s
from producer.settings import ProducerSettings
from producer.store import Record
from producer.submission import batches, cancellation
from producer.tracing import begin


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

    Connections open with the first call. How jobs are sent: producer/async_sending.py.
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
        self.tracing = begin(self._settings.tracing, "captionq-client")
        """Where jobs are traced."""
        self._opening = asyncio.Lock()
        self._open: tuple[AsyncRedisStore, Sending] | None = None

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

    async def send(self, batch: list[Job]) -> Sequence[Record | None]:
        """Submit up to `submission.BATCH` jobs that are prepared already (`submission.prepared`).

        Returns:
            The record each of them had before, in their order; None for the new ones.
        """
        store, sending = await self._opened()
        if self.tracing is None:
            return await sending.send(batch, {})
        with self.tracing.submitting(batch) as traceparents:
            known = await sending.send(batch, traceparents)
            with suppress(StoreUnavailable):  # they are sent, and their messages say so too
                await store.trace(traceparents)
            return known

    async def reach(self) -> None:
        """Raise BrokerUnavailable when the broker, if it is not the results store, cannot be
        reached."""
        _, sending = await self._opened()
        await sending.reach()

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
            store, sending = self._open
            self._open = None
            await store.close()
            await sending.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _opened(self) -> tuple[AsyncRedisStore, Sending]:
        async with self._opening:
            if self._open is None:
                settings = self._settings
                broker_url = self._broker_url or settings.broker_url
                if broker_url is None:
                    broker_url = await asyncio.to_thread(embedded.ensure, settings.home)
                results_url = settings.results_url_beside(broker_url, self._results_url)
                store = AsyncRedisStore(
                    results_url, socket_timeout_s=self._attempt_s, **settings.keeping
                )
                db = database_of_both(broker_url, results_url)
                sending: Sending
                if db is not None:
                    sending = InOneStep(store, db, self._timeout_s)
                else:
                    publisher = await asyncio.to_thread(
                        Publisher,
                        broker_url,
                        self._timeout_s,
                        settings.sentinel_master,
                        settings.rabbitmq_queues,
                    )
                    sending = ByCelery(store, publisher, self._timeout_s)
                self._open = store, sending
            return self._open

    async def _known(self, job_id: str) -> Record:
        record = await self.status(job_id)
        if record is None:
            raise UnknownJob(job_id)
        return record
