"""What is told of queues, whatever strangers have put into them, or into the results store."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from producer.embedded import RedisServer
from producer.ledger import Ledger
from worker.backlog import FOREIGN, Backlog
from worker.metrics.broker import Broker

QUEUE = "captionq.caption"
HOSTILE = {
    "bytes that are no text": b"\xff\xfe",
    "half a character": json.dumps({"headers": {"id": "\ud800"}}).encode(),
    "an id that is a list": json.dumps({"headers": {"id": [1]}}).encode(),
    "a depth that nobody reads": b"[" * 100_000,
    "no object": b"[1]",
}


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_server.url, **FOREIGN) as opened:
        yield opened


@pytest.mark.parametrize("entry", HOSTILE.values(), ids=list(HOSTILE))
def test_given_an_entry_that_is_no_message_next_in_line_its_queue_is_told_all_the_same(
    client: "redis.Redis", redis_server: RedisServer, entry: bytes
) -> None:
    with closing(redis.Redis.from_url(redis_server.url)) as raw:
        raw.lpush(QUEUE, entry)
    waiting = Broker(client, client, Ledger(60, 60), [QUEUE]).read()
    assert waiting.depths == {QUEUE: 1}
    assert waiting.results is not None
    assert Backlog(client).waiting(QUEUE) is not None


def test_given_a_record_that_is_none_nothing_is_raised(client: "redis.Redis") -> None:
    client.lpush(QUEUE, json.dumps({"headers": {"id": "a"}}))
    client.hset("captionq:job:a", "opened_ms", "nonsense")
    assert Broker(client, client, Ledger(60, 60), [QUEUE]).read().ages_s == {}
