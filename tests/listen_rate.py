"""How many uploads one `captionq listen` takes: python -m tests.listen_rate [--events 4000]

A queue without SQS behind it, whose calls take as long as SQS' do (20 ms by default), in this
process; a real Redis that takes the jobs, and no worker. For each number of pollers: events a
second, and bytes that Redis remembers of each event beside its job.
"""

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import redis

from producer.async_client import AsyncClient
from producer.embedded import RedisServer
from producer.event_intake import Intake
from producer.event_memory import EventMemory
from producer.event_rules import Rules
from producer.listen.patience import PatientIntake
from producer.listen.sqs import SqsListener
from producer.listen.sqs_queue import BATCH, Message, SqsQueue
from producer.s3_events import parse
from producer.settings import ProducerSettings
from tests.event_shapes import Happened, aws, records


class SlowQueue:
    """Messages that are there, by calls that take their time."""

    url = "https://sqs.example.com/1/uploads"

    def __init__(self, bodies: Sequence[str], call_s: float) -> None:
        self._left = deque(Message(str(n), str(n), body, 1) for n, body in enumerate(bodies))
        self._call_s = call_s

    async def receive(self, wait_s: int, visibility_s: int) -> list[Message]:
        await asyncio.sleep(self._call_s)
        return [self._left.popleft() for _ in range(min(BATCH, len(self._left)))]

    async def delete(self, messages: Sequence[Message]) -> None:
        await asyncio.sleep(self._call_s)

    async def hold(self, messages: Sequence[Message], seconds: int) -> None:
        await asyncio.sleep(self._call_s)


def bodies(events: int, versions: bool) -> list[str]:
    return [
        records(aws(Happened(key=f"in/{n}.jpg", version=f"v{n}" if versions else None, moment=n)))
        for n in range(events)
    ]


async def rate(events: int, pollers: int, call_s: float) -> dict[str, Any]:
    with RedisServer() as server:
        queue = SlowQueue(bodies(events, versions=True), call_s)
        async with AsyncClient(settings=ProducerSettings(broker_url=server.url)) as client:
            store = await client.open()
            memory, stop = EventMemory(store.redis), asyncio.Event()
            intake = PatientIntake(Intake(Rules.of(), memory, client.submit_many), stop)
            listener = SqsListener(
                cast(SqsQueue, queue), intake, memory, stop, pollers=pollers, once=True
            )
            began_s, began_cpu_s = time.monotonic(), time.process_time()
            await listener.run()
            took_s = time.monotonic() - began_s
            cpu_s = time.process_time() - began_cpu_s
        assert listener.tally.taken.jobs == events
    return {
        "pollers": pollers,
        "events_per_s": round(events / took_s),
        "cpu_us_per_event": round(1e6 * cpu_s / events),
    }


async def remembered(events: int, versions: bool) -> dict[str, Any]:
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        told = [event for body in bodies(events, versions) for event in parse(body)]
        async with AsyncClient(settings=ProducerSettings(broker_url=server.url)) as opened:
            memory = EventMemory((await opened.open()).redis)
            before = client.info("memory")["used_memory"]
            for begin in range(0, events, 100):
                part = told[begin : begin + 100]
                await memory.see(part)
                await memory.told(part)
            used = client.info("memory")["used_memory"] - before
    return {"versions": versions, "redis_bytes_per_event": round(used / events)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=4_000)
    parser.add_argument("--call-ms", type=float, default=20)
    asked = parser.parse_args()
    for pollers in (1, 2, 4, 8):
        print(json.dumps(asyncio.run(rate(asked.events, pollers, asked.call_ms / 1_000))))
    for versions in (True, False):
        print(json.dumps(asyncio.run(remembered(asked.events, versions))))


if __name__ == "__main__":
    main()
