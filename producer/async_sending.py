"""How `AsyncClient` sends: record and message in one step, or one after the other.

Where the broker is the Redis that has the results store, a job is recorded and sent at once, by one
script, in a fourth of the time. Any other broker is Celery's to publish to, in a worker thread.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from producer.async_redis_store import AsyncRedisStore
from producer.contract import Job
from producer.envelope import Envelopes
from producer.errors import BrokerFull, BrokerUnavailable, StoreFull, StoreUnavailable
from producer.publisher import Publisher, attempt_timeout_s, pauses
from producer.store import Record
from producer.submission import Unsent, to_send
from producer.wire import WireJob

Known = Sequence[Record | None]


class Sending(Protocol):
    """Sends prepared jobs (`submission.prepared`)."""

    async def send(self, batch: list[Job], traceparents: Mapping[str, str]) -> Known:
        """Submit up to `submission.BATCH` jobs; see `AsyncClient.send`. `traceparents` name the
        spans of those that are traced, by their ids."""

    async def reach(self) -> None:
        """Raise BrokerUnavailable when the broker cannot be reached."""

    async def close(self) -> None:
        """Close the connections that are not the store's."""


class InOneStep:
    """Jobs into a Redis that is broker and store. `timeout_s` is the longest time, in seconds."""

    def __init__(self, store: AsyncRedisStore, db: int, timeout_s: float) -> None:
        self._store = store
        self._envelopes = Envelopes(db)
        self._timeout_s = timeout_s

    async def send(self, batch: list[Job], traceparents: Mapping[str, str]) -> Known:
        """See `Sending.send`. A step whose answer is lost is repeated, and sends nothing twice."""
        sent = [self._envelopes.of(one, traceparents.get(one.job_id or "", "")) for one in batch]
        deadline_s = time.monotonic() + self._timeout_s
        return await _patiently(
            lambda: self._store.send_many(batch, sent),
            pauses(deadline_s, attempt_timeout_s(self._timeout_s)),
        )

    async def reach(self) -> None:
        """See `Sending.reach`: it is the store, and whoever asks the store knows."""

    async def close(self) -> None:
        """See `Sending.close`."""


class ByCelery:
    """Jobs recorded in the store, then published by Celery. `timeout_s` as above."""

    def __init__(self, store: AsyncRedisStore, publisher: Publisher, timeout_s: float) -> None:
        self._store = store
        self._publisher = publisher
        self._timeout_s = timeout_s
        self._unsent = Unsent()

    async def send(self, batch: list[Job], traceparents: Mapping[str, str]) -> Known:
        """See `Sending.send`."""
        deadline_s = time.monotonic() + self._timeout_s
        due = batch
        try:
            known = await _patiently(
                lambda: self._store.create_many(batch),
                pauses(deadline_s, attempt_timeout_s(self._timeout_s)),
            )
            due = to_send(batch, known, self._unsent)
            traced = WireJob.traced(due, traceparents)
            await asyncio.to_thread(self._publisher.publish, traced, deadline_s)
        except BrokerUnavailable as exc:
            self._unsent.add(due)
            if isinstance(exc, BrokerFull) or not isinstance(exc, StoreUnavailable):
                with suppress(StoreUnavailable):
                    await self._store.forget(*batch)
                    self._unsent.discard(due)
            raise
        self._unsent.discard(due)
        return known

    async def reach(self) -> None:
        """See `Sending.reach`."""
        await asyncio.to_thread(self._publisher.reach)

    async def close(self) -> None:
        """See `Sending.close`."""
        await asyncio.to_thread(self._publisher.close)


def database_of_both(broker_url: str, results_url: str) -> int | None:
    """The number of the database that is broker and results store; None where there are two, or
    where Celery and redis-py may read the URL in different ways.

    >>> database_of_both("redis://host:6379/1", "redis://host:6379/1")
    1
    """
    parts = urlsplit(broker_url)
    db = parts.path.strip("/") or "0"
    one = broker_url == results_url and parts.scheme in ("redis", "rediss")
    return int(db) if one and db.isdecimal() and not parts.query else None


async def _patiently(call: Callable[[], Awaitable[Known]], further: Iterator[float]) -> Known:
    while True:
        try:
            return await call()
        except StoreUnavailable as exc:
            pause_s = None if isinstance(exc, StoreFull) else next(further, None)
            if pause_s is None:
                raise
            await asyncio.sleep(pause_s)
