"""Concurrent calls, gathered into batches: a few round trips for many requests."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from producer.errors import BrokerUnavailable

T = TypeVar("T")
R = TypeVar("R")

MAX_WAITING = 10_000


class Gathering(Generic[T, R]):
    """Calls with what has come while the call before was under way: nobody waits for a timer.

    Args:
        call: takes a list, gives as many answers in the same order.
        most: longest list.
        max_waiting: how many may wait for their turn; more are refused.
    """

    def __init__(
        self,
        call: Callable[[list[T]], Awaitable[Sequence[R]]],
        most: int,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._call = call
        self._most = most
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._calling: asyncio.Task[None] | None = None

    async def ask(self, item: T) -> R:
        """The answer for one.

        Raises:
            BrokerUnavailable: too many wait already.
            Exception: whatever the call of its batch raised.
        """
        if len(self._waiting) >= self._max_waiting:
            raise BrokerUnavailable("Too many requests wait for the broker.")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._calling is None:
            self._calling = asyncio.create_task(self._call_on())
        return await answer

    async def close(self) -> None:
        """Wait until all that was asked is answered."""
        if self._calling is not None:
            await self._calling

    async def _call_on(self) -> None:
        try:
            while self._waiting:
                count = min(self._most, len(self._waiting))
                await self._answer([self._waiting.popleft() for _ in range(count)])
        finally:
            self._calling = None

    async def _answer(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            answers = await self._call([item for item, _ in batch])
        except Exception as exc:  # noqa: BLE001 - it is theirs who wait
            for _, future in batch:
                with suppress(asyncio.InvalidStateError):  # they wait no more
                    future.set_exception(exc)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                with suppress(asyncio.InvalidStateError):
                    future.set_result(answer)
