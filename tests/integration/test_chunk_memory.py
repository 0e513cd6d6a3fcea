"""What a reference to an image costs in Redis while it waits: stored once, and little more."""

from typing import Any

import pytest
import redis

from producer import CaptionChunk, Client
from producer.embedded import RedisServer

CHUNKS, IMAGES, URI_CHARS = 1_000, 64, 80
MOST_BYTES = 250


def test_given_addresses_of_eighty_characters_then_each_costs_250_bytes_at_most(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis.Redis.from_url(redis_server.url) as server, Client(redis_server.url) as client:
        client.submit(CaptionChunk(images=("s3://bucket/key",)))  # scripts, connections, the index
        before = used(server)
        client.submit_many(map(chunk, range(CHUNKS)))
        after = used(server)
        record: Any = server.memory_usage("captionq:job:run.0007", samples=0)
    per_image = (after - before) / (CHUNKS * IMAGES)
    with capsys.disabled():
        print(
            f"\n{per_image:.0f} bytes of Redis for each of {CHUNKS * IMAGES:,} addresses of "
            f"{URI_CHARS} characters; {record / IMAGES:.0f} of them in the record"
        )
    assert per_image <= MOST_BYTES


def chunk(number: int) -> CaptionChunk:
    images = tuple(uri(number * IMAGES + n) for n in range(IMAGES))
    return CaptionChunk(job_id=f"run.{number:04}", images=images)


def uri(number: int) -> str:
    return f"s3://photographs/2026/11/27/{number:012}".ljust(URI_CHARS - 4, "x") + ".jpg"


def used(server: redis.Redis) -> int:
    return int(server.info("memory")["used_memory"])  # type: ignore[index]
