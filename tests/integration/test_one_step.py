"""Jobs that are recorded and sent in one step: their messages are what Celery would write."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from producer import AsyncClient, CaptionJob, Client
from producer.async_redis_store import AsyncRedisStore
from producer.async_sending import database_of_both
from producer.callback import Callback
from producer.chunk_jobs import CaptionChunk, EmbedChunk, MatchChunk, RankChunk
from producer.contract import EmbedJob, ExplainJob, Job, MatchJob, RankJob
from producer.embedded import RedisServer
from producer.envelope import Envelopes
from producer.errors import BrokerFull, StoreUnavailable
from producer.settings import ProducerSettings
from producer.signing import Keys
from producer.submission import prepared
from tests.stand_in_worker import StandInWorker

IMAGE = "https://example.com/cat.jpg?signature=secret"

KINDS: dict[str, Callable[[], Job]] = {
    "caption": lambda: CaptionJob(job_id="j", image=IMAGE),
    "another alphabet": lambda: MatchJob(job_id="j", image=IMAGE, texts=("кошка \U0001f408",)),
    "bulk": lambda: CaptionJob(job_id="j", image=IMAGE, lane="bulk"),
    "one model": lambda: RankJob(job_id="j", image=IMAGE, texts=("a cat",), model="org/blip"),
    "texts": lambda: EmbedJob(job_id="j", texts=("a cat",)),
    "explain": lambda: ExplainJob(job_id="j", image=IMAGE, texts=("a cat",)),
    "chunk": lambda: CaptionChunk(job_id="j", images=(IMAGE, IMAGE)),
    "chunk of pairs": lambda: MatchChunk(
        job_id="j", images=(IMAGE, IMAGE), texts_per_image=(("a cat",), ("a dog",)), lane="bulk"
    ),
    "chunk to embed": lambda: EmbedChunk(job_id="j", images=(IMAGE,), model="org/blip"),
    "chunk to rank": lambda: RankChunk(job_id="j", images=(IMAGE,), text="a cat"),
    "bulk, of one model": lambda: CaptionJob(
        job_id="j", image=IMAGE, lane="bulk", model="a model.bulk"
    ),
    "to be told of": lambda: CaptionJob(
        job_id="j", image=IMAGE, callback=Callback(url="https://app.example.com/hook")
    ),
    "signed": lambda: CaptionJob(job_id="j", image=IMAGE),
    "owned": lambda: CaptionJob(job_id="j", image=IMAGE, owner="shop", batch_id="b"),
}

KEYS = Keys.parse("k1:" + base64.b64encode(b"k" * 32).decode())

EACH_ITS_OWN = {"delivery_tag", "reply_to", "origin", "hostname", "timestamp", "clock", "pid"}


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client


def opened(text: str) -> Any:
    """A message, with its body read; without what no two messages share."""
    message = json.loads(text)
    message["body"] = json.loads(base64.b64decode(message["body"]))
    return without(message)


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without(one) for name, one in value.items() if name not in EACH_ITS_OWN}
    return [without(one) for one in value] if isinstance(value, list) else value


def written(broker: redis.Redis) -> tuple[str, Any]:
    """The one queue with a message, and the message."""
    (queue,) = (key for key in broker.keys("captionq.*") if broker.type(key) == "list")
    (message,) = broker.lrange(queue, 0, -1)
    return queue, opened(message)


def event(broker: redis.Redis, send: Callable[[], object]) -> Any:
    """The event that sending a job publishes for Flower."""
    with broker.pubsub() as channels:
        channels.psubscribe("*celeryev*")
        channels.get_message(timeout=5)
        send()
        while True:
            said = channels.get_message(timeout=5)
            assert said is not None
            if said["type"] == "pmessage":
                return said["channel"], opened(said["data"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_and_its_event_are_what_celery_would_write(
    kind: str, redis_server: RedisServer, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(KINDS[kind](), KEYS if kind == "signed" else None)
    with Client(redis_server.url) as client:
        by_celery = event(broker, lambda: client._publisher.publish([job], deadline_s=float("inf")))
    celerys = written(broker)
    broker.flushall()

    store = AsyncRedisStore(redis_server.url)
    with broker.pubsub() as channels:
        channels.psubscribe("*celeryev*")
        channels.get_message(timeout=5)
        await store.send_many([job], [Envelopes(0).of(job)])
        said = next(
            one
            for one in iter(lambda: channels.get_message(timeout=5), None)
            if one["type"] == "pmessage"
        )
    await store.close()

    assert written(broker) == celerys
    assert (said["channel"], opened(said["data"])) == by_celery


async def test_summer_time_is_told_as_celery_tells_it(
    redis_server: RedisServer, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(CaptionJob(job_id="j", image=IMAGE))
    monkeypatch.setenv("TZ", "HERE-1SUMMER-2,J1/0,J365/23")
    time.tzset()
    try:
        with Client(redis_server.url) as client:
            _, told = event(broker, lambda: client._publisher.publish([job], float("inf")))
        ours = opened(Envelopes(0).of(job).event)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert told["body"]["utcoffset"] == ours["body"]["utcoffset"] == -2


async def test_a_job_that_is_known_is_not_sent_again(
    redis_server: RedisServer, broker: redis.Redis
) -> None:
    async with AsyncClient(redis_server.url) as client:
        first = await client.submit(CaptionJob(job_id="j", image=IMAGE))
        second = await client.submit(CaptionJob(job_id="j", image=IMAGE))

    assert first == second
    assert broker.llen("captionq.caption") == 1


async def test_a_step_that_is_repeated_because_its_answer_was_lost_sends_nothing_twice(
    redis_server: RedisServer, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = AsyncRedisStore.send_many, []

    async def cut_off(self: AsyncRedisStore, *args: Any) -> Any:
        known = await real(self, *args)
        tries.append(known)
        if len(tries) == 1:
            raise StoreUnavailable("the connection broke before the answer came")
        return known

    monkeypatch.setattr(AsyncRedisStore, "send_many", cut_off)
    async with AsyncClient(redis_server.url) as client:
        await client.submit(CaptionJob(job_id="j", image=IMAGE))

    assert tries == [[None], [None]]
    assert broker.llen("captionq.caption") == 1


async def test_what_was_sent_in_one_step_is_worked_on(redis_server: RedisServer) -> None:
    async with AsyncClient(redis_server.url) as client:
        with StandInWorker(redis_server.url):
            handles = await client.submit_many(
                [CaptionJob(image=IMAGE), CaptionChunk(images=(IMAGE, IMAGE))]
            )
            results = [await handle.result(10) for handle in handles]

    assert [result.state for result in results] == ["succeeded", "succeeded"]


async def test_given_a_redis_that_is_full_a_job_is_neither_recorded_nor_sent(
    redis_server: RedisServer, broker: redis.Redis
) -> None:
    broker.config_set("maxmemory", 1)
    try:
        async with AsyncClient(redis_server.url) as client:
            with pytest.raises(BrokerFull):
                await client.submit(CaptionJob(job_id="j", image=IMAGE))
    finally:
        broker.config_set("maxmemory", 0)

    assert broker.keys("captionq*") == []


@pytest.mark.parametrize(
    ("broker_url", "results_url", "db"),
    [
        ("redis://host:6379/1", "redis://host:6379/1", 1),
        ("redis://host", "redis://host", 0),
        ("rediss://:p@host/3", "rediss://:p@host/3", 3),
        ("redis://host/1", "redis://host/2", None),
        ("redis://host/1?ssl_cert_reqs=none", "redis://host/1?ssl_cert_reqs=none", None),
        ("redis://host/one", "redis://host/one", None),
        ("unix:///run/redis.sock", "unix:///run/redis.sock", None),
        ("sentinel://host", "redis://host", None),
        ("amqp://host", "redis://host", None),
    ],
)
def test_only_a_redis_that_is_broker_and_store_takes_both_at_once(
    broker_url: str, results_url: str, db: int | None
) -> None:
    assert database_of_both(broker_url, results_url) == db


async def test_given_another_database_for_results_celery_sends(
    redis_server: RedisServer, broker: redis.Redis
) -> None:
    settings = ProducerSettings(
        broker_url=redis_server.url, results_url=redis_server.url.removesuffix("/0") + "/1"
    )
    async with AsyncClient(settings=settings) as client:
        known = await client.send([prepared(CaptionJob(job_id="j", image=IMAGE))])
        again = await client.send([prepared(CaptionJob(job_id="j", image=IMAGE))])
        await client.reach()

    assert known == [None]
    assert again[0] is not None
    assert written(broker)[0] == "captionq.caption"
    assert broker.keys("captionq:*") == []
