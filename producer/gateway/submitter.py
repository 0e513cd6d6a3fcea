"""Concurrent submissions, gathered into batches: a few round trips for many requests."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Protocol

from producer.contract import Job
from producer.errors import BrokerUnavailable
from producer.store import Record
from producer.submission import BATCH

MAX_WAITING = 10_000
"""Jobs that wait for their turn; more are refused."""


class Sends(Protocol):
    """What sends a batch of prepared jobs: the client."""

    async def send(self, batch: list[Job]) -> list[Record | None]:
        """See `AsyncClient.send`."""


class Submitter:
    """Sends what has come while the batch before was under way; nobody waits for a timer.

    `jobs` have been through `submission.prepared`.
    """

    def __init__(self, client: Sends) -> None:
        self._client = client
        self._waiting: deque[tuple[Job, asyncio.Future[Record | None]]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def submit(self, job: Job) -> Record | None:
        """Submit one job. Returns the record that was there before; None for a new job.

        Raises:
            BrokerUnavailable: see `AsyncClient.submit`; or too many wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise BrokerUnavailable("Too many jobs wait to be sent.")
        known: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, known))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await known

    async def close(self) -> None:
        """Wait until all that came is sent, or could not be."""
        if self._sending is not None:
            await self._sending

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                count = min(BATCH, len(self._waiting))
                await self._send([self._waiting.popleft() for _ in range(count)])
        finally:
            self._sending = None

    async def _send(self, batch: list[tuple[Job, "asyncio.Future[Record | None]"]]) -> None:
        try:
            known = await self._client.send([job for job, _ in batch])
        except Exception as exc:  # noqa: BLE001 - it is each one's who waits
            for _, future in batch:
                with suppress(asyncio.InvalidStateError):  # they hung up
                    future.set_exception(exc)
        else:
            for (_, future), record in zip(batch, known, strict=True):
                with suppress(asyncio.InvalidStateError):
                    future.set_result(record)
