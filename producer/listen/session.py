"""One listener from its start to its end: what it needs, its signals, and what it says."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.async_client import AsyncClient
from producer.contract import ImageJob
from producer.event_intake import Intake, Prepare, events_traced
from producer.event_memory import EventMemory
from producer.event_rules import Rules
from producer.index.removal import remover
from producer.ledger import typed_errors
from producer.listen.folder import FolderListener, uploads
from producer.listen.patience import PatientIntake
from producer.listen.sqs import SqsListener
from producer.listen.sqs_queue import SqsQueue
from producer.settings import ProducerSettings
from producer.upload import uploader

log = logging.getLogger(__name__)

SAY_EVERY_S = 10.0
INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Parts:
    """What a listener is made of."""

    intake: PatientIntake
    memory: EventMemory
    stop: asyncio.Event


async def of_queue(
    settings: ProducerSettings, rules: Rules, word: str, **options: Any
) -> dict[str, Any]:
    """Listen to a queue of SQS; `options` are further ones of `SqsListener`. What was done.

    Raises:
        NoQueue: there is none that can be read.
        BrokerUnavailable: the broker is not there at the start.
    """
    with closing(
        SqsQueue(word, settings.sqs_endpoint_url, at_once=2 * options["pollers"] + 2)
    ) as queue:
        await queue.open()
        async with _parts(settings, rules) as parts:
            listener = SqsListener(queue, parts.intake, parts.memory, parts.stop, **options)
            log.info("Listening to %s", queue.url)

            def words() -> str:
                done = listener.tally
                counts = ", ".join(f"{n:,} {what}" for what, n in done.messages.most_common())
                return f"{done.taken.words()}; messages: {counts or 'none'}"

            await _until_done(listener.run(), words)
    done = listener.tally
    messages = {what: done.messages[what] for what in ("deleted", "unreadable", "buried")}
    return {"queue": queue.url, "events": done.taken.document(), "messages": messages}


async def of_folder(
    settings: ProducerSettings, rules: Rules, folder: Path, **options: Any
) -> dict[str, Any]:
    """Listen to a folder; `options` are further ones of `FolderListener`. What was done.

    Raises:
        BrokerUnavailable: the broker is not there at the start.
        OSError: something that it needs is not installed.
    """
    upload = uploader(settings)
    prepare = uploads(upload) if upload else None
    async with _parts(settings, rules, prepare) as parts:
        listener = FolderListener(folder, parts.intake, parts.stop, **options)
        log.info("Listening to %s", folder)
        await _until_done(listener.run(), lambda: listener.taken.words())
    return {"folder": str(folder), "events": listener.taken.document()}


@asynccontextmanager
async def _parts(
    settings: ProducerSettings, rules: Rules, prepare: Prepare | None = None
) -> AsyncIterator[Parts]:
    """What a listener needs, while the block lasts; SIGTERM and SIGINT set `stop` meanwhile.

    Raises:
        BrokerUnavailable: it is not there.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, _asked_to_end, stop)
    try:
        remove = await asyncio.to_thread(remover, settings)
        async with AsyncClient(settings=settings) as client:
            store = await client.open()
            # Before anything is received: a wrong address is no outage, and each receipt of a
            # message counts towards the queue's redrive policy.
            with typed_errors():
                await store.redis.ping()
            await client.reach()
            memory = EventMemory(store.redis, settings.events_memory_s, store.ledger.prefix)

            async def submit(jobs: Sequence[ImageJob]) -> None:
                with events_traced(client.tracing, jobs):
                    await client.submit_many(jobs)

            intake = Intake(rules, memory, submit, prepare=prepare, remove=remove)
            yield Parts(PatientIntake(intake, stop), memory, stop)
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _asked_to_end(stop: asyncio.Event) -> None:
    if stop.is_set():  # nothing is lost by it: what was received comes again
        os._exit(INTERRUPTED)
    log.info("Ending, after what has been received; a second signal ends it at once.")
    stop.set()


async def _until_done(running: Coroutine[Any, Any, None], words: Callable[[], str]) -> None:
    """Run it to its end, and say now and then how far it is."""

    async def say() -> None:
        said = words()
        while True:
            await asyncio.sleep(SAY_EVERY_S)
            if (now := words()) != said:
                said = now
                log.info("%s", said)

    saying = asyncio.create_task(say())
    try:
        await running
    finally:
        saying.cancel()
        log.info("Ended: %s", words())
