"""How much memory Redis needs: measured by what real clients write, per million.

python -m tests.redis_sizing            # 20,000 of each
python -m tests.redis_sizing 100000
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import redis

from producer import CaptionChunk, CaptionJob, Client
from producer.callback import Callback
from producer.contract import Job
from producer.event_memory import EventMemory
from producer.object_event import ObjectEvent
from producer.redis_at import async_redis_at
from producer.redis_server import RedisServer
from producer.redis_store import RedisStore
from producer.settings import ProducerSettings
from tests.stand_in_worker import succeeded

IMAGE = "s3://photos-of-a-shop/2026/01/31/{:012d}.jpg"
SINK = "s3://captions-of-a-shop/2026/"
CHUNK = 64


def show(what: str, taken_bytes: float, count: int) -> None:
    """Print how much that is for each, and in MiB for a million."""
    each = taken_bytes / count
    print(f"{what:72}{each:10,.0f} B{each * 1e6 / 2**20:10,.0f} MiB", flush=True)


def _used(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory_dataset"]) + int(info["used_memory_overhead"])


def finish(store: RedisStore, jobs: Sequence[Job]) -> None:
    for job in jobs:
        result = succeeded(job)
        if isinstance(job, CaptionChunk) and job.sink:
            result = result.model_copy(update={"items": None, "shard": f"{SINK}{job.job_id}.jsonl"})
        store.finish(result)


def sizes(count: int) -> None:
    """Measure each kind in a server of its own."""
    settings = ProducerSettings(listed_jobs=0, result_stream=0)
    kinds: dict[str, Callable[[int], Job]] = {
        "job": lambda n: CaptionJob(image=IMAGE.format(n), job_id=f"{n:032x}"),
        f"image in chunks of {CHUNK}": lambda n: CaptionChunk(
            images=tuple(IMAGE.format(n * CHUNK + i) for i in range(CHUNK)), job_id=f"{n:032x}"
        ),
        f"image in chunks of {CHUNK} with a sink": lambda n: CaptionChunk(
            images=tuple(IMAGE.format(n * CHUNK + i) for i in range(CHUNK)), job_id=f"{n:032x}",
            sink=SINK,
        ),
        "job with a callback": lambda n: CaptionJob(
            image=IMAGE.format(n), job_id=f"{n:032x}",
            callback=Callback(url="https://shop.example/captioned"),
        ),
    }  # fmt: skip
    print(f"{'of ' + format(count, ','):72}{'each':>12}{'a million':>14}")
    for kind, make in kinds.items():
        images = CHUNK if "chunk" in kind else 1
        jobs = [make(n) for n in range(count // images)]
        with (
            RedisServer(appendonly="no") as server,
            redis.Redis.from_url(server.url) as client,
            Client(server.url, settings=settings) as submitting,
            closing(RedisStore(server.url, listed_jobs=0)) as store,
        ):
            before = _used(client)
            submitting.submit_many(jobs)
            show(f"{kind}: waiting, its record and its message", _used(client) - before, count)
            client.delete("captionq.caption", "captionq.caption.bulk")
            finish(store, jobs)
            show(f"{kind}: finished, its record", _used(client) - before, count)
    others(count)


def others(count: int) -> None:
    """What lies beside the records."""
    with RedisServer(appendonly="no") as server, redis.Redis.from_url(server.url) as client:
        before = _used(client)
        asyncio.run(remember(server.url, count))
        show("event of an object that is remembered", _used(client) - before, count)
        client.flushall()
        with closing(RedisStore(server.url, listed_jobs=0, result_stream=10**9)) as streaming:
            finish(
                streaming, [CaptionJob(image=IMAGE.format(n), job_id=str(n)) for n in range(count)]
            )
        kept: Any = client.memory_usage("captionq:results", samples=0)
        show("result in the stream of results", kept, count)


async def remember(url: str, count: int) -> None:
    connections = async_redis_at(url, decode_responses=True)
    memory = EventMemory(connections, 604_800, "captionq:")
    for begin in range(0, count, 500):
        events = [event(n) for n in range(begin, min(count, begin + 500))]
        await memory.see(events)
        await memory.told(events)
    await connections.aclose()


def event(number: int) -> ObjectEvent:
    return ObjectEvent(
        "aws", "created", "photos", IMAGE.format(number),
        sequencer=f"{number:018X}", etag=f"{number:032x}",
    )  # fmt: skip


if __name__ == "__main__":
    sizes(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
