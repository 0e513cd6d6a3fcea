"""Events of a queue, turned into jobs: a message is deleted when the broker has all its jobs."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from producer.errors import BrokerUnavailable
from producer.event_intake import Taken
from producer.event_memory import EventMemory
from producer.listen.patience import PatientIntake, pause_s, stopped_within
from producer.listen.sqs_queue import (
    LONG_POLL_S,
    Message,
    NoQueue,
    QueueRefused,
    QueueUnavailable,
    SqsQueue,
)
from producer.object_event import ObjectEvent
from producer.s3_events import UnknownEvent, parse

log = logging.getLogger(__name__)

LAST_LOOK_S = 2
"""How long the queue is waited on before it counts as empty. SQS asks all its servers then."""


@dataclass
class Tally:
    """What a listener has done."""

    taken: Taken = field(default_factory=Taken)
    messages: Counter[str] = field(default_factory=Counter)
    """deleted: seen to; unreadable: each time one came; buried: now dead letters."""


class SqsListener:
    """Polls a queue until told to stop, or once until it is empty.

    Args:
        stop: set when it is to end. What was received is seen to first, unless the broker is away:
            then it goes back to the queue.
        pollers: receives, and what follows them, that are under way at a time.
        visibility_s: how long a message is kept from others; it is held on to for longer while the
            broker is away. After a kill it comes again when this is over.
        dead_after: receives after which a message that cannot be read becomes a dead letter. None
            leaves all to the queue's redrive policy.
        long_poll_s: how long one call waits for messages. Ending takes no longer than that, and
            what follows.
        once: whether to end when the queue is empty.
    """

    def __init__(
        self,
        queue: SqsQueue,
        intake: PatientIntake,
        memory: EventMemory,
        stop: asyncio.Event,
        *,
        pollers: int = 4,
        visibility_s: int = 60,
        dead_after: int | None = None,
        long_poll_s: int = LONG_POLL_S,
        once: bool = False,
    ) -> None:
        self._queue = queue
        self._intake = intake
        self._memory = memory
        self._stop = stop
        self._pollers = pollers
        self._visibility_s = visibility_s
        self._dead_after = dead_after
        self._wait_s = min(LAST_LOOK_S, long_poll_s) if once else long_poll_s
        self._once = once
        self._rng = random.Random()
        self._reached = False
        self.tally = Tally()

    async def run(self) -> None:
        """Listen.

        Raises:
            NoQueue: it was refused from the first. Later that is an outage, and waited for.
        """
        try:
            async with asyncio.TaskGroup() as pollers:
                for _ in range(self._pollers):
                    pollers.create_task(self._poll())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _poll(self) -> None:
        tries = 0
        while not self._stop.is_set():
            try:
                messages = await self._queue.receive(self._wait_s, self._visibility_s)
            except QueueUnavailable as exc:
                if isinstance(exc, QueueRefused) and not self._reached:
                    raise NoQueue(f"{self._queue.url} cannot be listened to: {exc}") from exc
                tries += 1
                log.warning("%s Trying again.", exc)
                await stopped_within(self._stop, pause_s(tries, self._rng))
                continue
            tries, self._reached = 0, True
            if messages:
                async with self._held(messages):
                    await self._see_to(messages)
            elif self._once:
                return

    async def _see_to(self, messages: Sequence[Message]) -> None:
        good: list[Message] = []
        events: list[ObjectEvent] = []
        for message in messages:
            try:
                events += parse(message.body)
            except UnknownEvent as exc:
                await self._unreadable(message, exc)
            else:
                good.append(message)
        taken = await self._intake.take(events)
        if taken is None:
            await self._try(self._queue.hold(good, 0), "Messages could not be given back")
            return
        self.tally.taken.add(taken)
        if await self._delete(good):
            self.tally.messages["deleted"] += len(good)

    async def _unreadable(self, message: Message, exc: UnknownEvent) -> None:
        said = f"{message.message_id}, received {message.receives} times: {exc}"
        self.tally.messages["unreadable"] += 1
        if self._dead_after is None or message.receives < self._dead_after:
            log.warning("A message that cannot be read is left to the queue: %s", said)
            return
        try:
            await self._memory.bury(message.body, self._queue.url, f"No event: {exc}")
        except BrokerUnavailable:
            log.warning("A message that cannot be read could not be buried, and stays: %s", said)
            return
        log.error("A message that cannot be read is now a dead letter: %s", said)
        self.tally.messages["buried"] += 1
        await self._delete([message])

    async def _delete(self, messages: Sequence[Message]) -> bool:
        otherwise = "Messages were not deleted, and come again"
        return await self._try(self._queue.delete(messages), otherwise)

    @asynccontextmanager
    async def _held(self, messages: Sequence[Message]) -> AsyncIterator[None]:
        """Keep the messages from others for as long as the block lasts."""

        async def hold_on() -> None:
            while True:
                await asyncio.sleep(self._visibility_s / 2)
                held = self._queue.hold(messages, self._visibility_s)
                await self._try(held, "Messages could not be held, and may come again")

        holding = asyncio.create_task(hold_on())
        try:
            yield
        finally:
            holding.cancel()

    @staticmethod
    async def _try(call: Awaitable[None], otherwise: str) -> bool:
        """Whether it could be done."""
        try:
            await call
        except QueueUnavailable as exc:
            log.warning("%s: %s", otherwise, exc)
            return False
        return True
