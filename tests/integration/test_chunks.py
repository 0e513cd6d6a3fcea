"""Chunks through a real Redis, HTTP, S3 and a real worker: each image ends alone, and once."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from producer import CaptionChunk, Client, ItemResult, JobFailed, JobState, MatchChunk
from producer.contract import Chunk, JobResult, utcnow
from producer.embedded import RedisServer
from producer.redis_store import RedisStore
from producer.settings import ProducerSettings
from producer.signing import new_key
from tests.house import PNG, SCENE
from tests.servers import Reply, ScriptedHttp
from tests.stand_in_worker import messages
from tests.worker_process import WorkerProcess
from worker.deadletter import DeadLetters
from worker.embedded_s3 import S3Server

TIMEOUT_S = 60
GOOD = [Reply(200, PNG)]
KEY = new_key("here")


@dataclass
class House:
    url: str
    web: ScriptedHttp
    folder: Path
    environment: dict[str, str]
    worker: WorkerProcess
    client: Client
    celery: Celery

    def images(self, name: str, *replies: list[Reply]) -> tuple[str, ...]:
        """Addresses of their own, which answer so."""
        paths = [f"/{name}/{n}.png" for n in range(len(replies))]
        self.web.routes |= dict(zip(paths, replies, strict=True))
        return tuple(map(self.web.url, paths))

    def hits(self, name: str, count: int) -> list[int]:
        return [self.web.hits(f"/{name}/{n}.png") for n in range(count)]

    def restart(self, **environment: str) -> None:
        """Another worker, in place of one that has been killed."""
        if self.worker.process.poll() is None:
            self.worker.process.kill()
            self.worker.process.wait()
        log = self.folder / f"worker-{time.monotonic_ns()}.log"
        self.worker = WorkerProcess(log, self.environment | environment)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("chunks")
    (folder / "shards").mkdir()
    (folder / "s3" / "bucket").mkdir(parents=True)
    with (
        RedisServer(folder / "redis") as broker,
        S3Server(folder / "s3") as s3,
        ScriptedHttp() as web,
        Client(broker.url) as client,
        Celery("theirs", broker=broker.url, backend=broker.url, set_as_current=False) as celery,
    ):
        environment = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{web.port}",
            "CAPTIONQ_S3_ENDPOINT_URL": s3.endpoint_url,
            "CAPTIONQ_SINK_ALLOW": f"s3://bucket/shards/,file://{folder}/shards/",
            "CAPTIONQ_MAX_BATCH": "8",
            "CAPTIONQ_VISIBILITY_TIMEOUT_S": "2",
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        worker = WorkerProcess(folder / "worker.log", environment)
        opened = House(broker.url, web, folder, environment, worker, client, celery)
        yield opened
        opened.worker.stop()


def told(items: tuple[ItemResult, ...] | None) -> list[tuple[int, str, int]]:
    return [(item.index, item.outcome, item.attempts) for item in items or ()]


def test_given_a_chunk_with_good_and_bad_images_then_each_ends_alone_in_order_and_is_fetched_once(
    house: House,
) -> None:
    images = (
        *house.images(
            "mixed",
            GOOD,
            [Reply(404)],
            [Reply(503), Reply(200, PNG)],
            [Reply(200, PNG[: len(PNG) // 2])],
            GOOD,
            [Reply(503)],
        ),
        "http://127.0.0.1/blocked.png",
    )
    handle = house.client.submit(CaptionChunk(images=images))
    result = handle.result(TIMEOUT_S).raise_for_state()

    assert told(result.items) == [
        (0, "succeeded", 1),
        (1, "http_4xx", 1),
        (2, "succeeded", 2),
        (3, "image_corrupt", 1),
        (4, "succeeded", 1),
        (5, "http_5xx", 3),
        (6, "url_blocked", 1),
    ]
    assert result.counts == {
        "succeeded": 3,
        "http_4xx": 1,
        "image_corrupt": 1,
        "http_5xx": 1,
        "url_blocked": 1,
    }
    assert house.hits("mixed", 6) == [1, 1, 2, 1, 1, 3]
    assert (result.attempts, result.shard) == (3, None)
    assert result.image_ref == f"7 images from {images[0]}"
    assert result.items is not None
    good = result.items[0]
    assert good.captions is not None
    assert good.image is not None
    assert good.image_ref == images[0]
    with redis.Redis.from_url(house.url) as client:
        assert not client.exists(f"captionq:items:{handle.job_id}")


def test_given_a_chunk_to_match_then_each_image_is_weighed(house: House) -> None:
    texts = (SCENE.caption, "nothing of the kind")
    images = house.images("matched", GOOD, GOOD)
    result = house.client.submit(MatchChunk(images=images, texts=texts)).result(TIMEOUT_S)
    assert [[match.text for match in item.matches or ()] for item in result.items or ()] == [
        list(texts)
    ] * 2


def test_given_a_plain_celery_client_then_its_whole_chunk_runs(house: House) -> None:
    job = {"images": house.images("plain", GOOD, [Reply(503), Reply(200, PNG)])}
    sent = house.celery.send_task("captionq.caption_chunk", kwargs={"job": job})
    result = sent.get(timeout=TIMEOUT_S)
    assert [(item["state"], item["attempts"]) for item in result["items"]] == [
        ("succeeded", 1),
        ("succeeded", 2),
    ]
    assert house.hits("plain", 2) == [1, 2]


def test_given_a_chunk_of_our_client_then_its_images_are_in_the_record_and_not_in_the_message(
    redis_server: RedisServer,
) -> None:
    chunk = CaptionChunk(images=("https://example.com/a.png", "https://example.com/b.png"))
    with Client(redis_server.url) as client, redis.Redis.from_url(redis_server.url) as broker:
        handle = client.submit(chunk)
        (message,) = messages(broker, "captionq.caption.bulk")
        record = client.status(handle.job_id)
    assert message["kwargs"] == {"job": {"recorded": handle.job_id}}
    assert "2 images from https://example.com/a.png" in message["headers"]["kwargsrepr"]
    assert record is not None
    assert json.loads(record.job or "")["images"] == list(chunk.images)


def test_given_a_chunk_whose_record_is_gone_then_it_ends_as_expired_and_can_be_submitted_anew(
    house: House,
) -> None:
    sent = house.celery.send_task(
        "captionq.caption_chunk", kwargs={"job": {"recorded": "gone"}}, task_id="gone"
    )
    with pytest.raises(Exception, match="job_expired"):
        sent.get(timeout=TIMEOUT_S)
    assert "job 'gone' has no record any more" in house.worker.log
    told_of = house.client.result("gone")
    assert told_of.error is not None
    assert (told_of.error.code, told_of.attempts) == ("job_expired", 0)
    sent.forget()
    chunk = CaptionChunk(job_id="gone", images=house.images("gone", GOOD))
    assert house.client.submit(chunk).result(TIMEOUT_S).state is JobState.SUCCEEDED


def test_given_an_expired_and_a_cancelled_chunk_then_nothing_is_fetched_for_them(
    house: House,
) -> None:
    past = utcnow() - timedelta(seconds=1)
    late = CaptionChunk(images=house.images("late", GOOD), expires_at=past)
    result = house.client.submit(late).result(TIMEOUT_S)
    assert result.error is not None
    assert result.error.code == "job_expired"

    busy = [Reply(503, headers={"Retry-After": "3"}), Reply(200, PNG)]
    handle = house.client.submit(CaptionChunk(images=house.images("cancelled", busy, GOOD)))
    until(lambda: delayed(house.url) == 1)
    assert handle.cancel().state is JobState.CANCELLED
    with pytest.raises(JobFailed):
        handle.result(TIMEOUT_S).raise_for_state()
    until(lambda: delayed(house.url) == 0, timeout_s=20)
    house.client.submit(CaptionChunk(images=house.images("after-it", GOOD))).result(TIMEOUT_S)
    assert house.hits("late", 1) == [0]
    first, second = house.hits("cancelled", 2)
    assert first == 1
    assert second <= 1, "none, where the host had asked to be left alone before its turn"


def delayed(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        count: Any = client.zcard("captionq.delayed")
        return int(count)


def until(condition: Any, timeout_s: float = TIMEOUT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_given_a_worker_that_is_killed_in_a_later_attempt_then_what_is_settled_is_not_fetched_again(
    house: House,
) -> None:
    slow = [Reply(503), Reply(200, PNG, delay_s=5), Reply(200, PNG)]
    images = house.images("killed", GOOD, [Reply(404)], slow, GOOD)
    handle = house.client.submit(CaptionChunk(images=images))
    until(lambda: house.hits("killed", 4)[2] == 2)
    house.worker.process.kill()
    house.restart()
    result = handle.result(TIMEOUT_S).raise_for_state()

    assert told(result.items) == [
        (0, "succeeded", 1),
        (1, "http_4xx", 1),
        (2, "succeeded", 2),
        (3, "succeeded", 1),
    ]
    assert house.hits("killed", 4) == [1, 1, 3, 1]


def test_given_a_worker_that_is_told_to_end_then_a_chunk_goes_back_with_what_is_settled(
    house: House,
) -> None:
    house.restart(CAPTIONQ_CHUNK_THREADS="1")
    images = house.images("ending", GOOD, [Reply(200, PNG, delay_s=2)], *[GOOD] * 20)
    handle = house.client.submit(CaptionChunk(images=images))
    until(lambda: house.hits("ending", 2)[1] == 1)
    began_s = time.monotonic()
    house.worker.stop()
    assert time.monotonic() - began_s < 15
    assert 2 <= sum(house.hits("ending", 22)) < 22
    with RedisStoreOf(house.url) as store:
        record = store.get(handle.job_id)
        assert record is not None
        assert (record.state, record.deliveries(1)) == (JobState.QUEUED, 0)
        assert len(store.settle(handle.job_id).items) == sum(house.hits("ending", 22))
    house.restart()
    result = handle.result(TIMEOUT_S).raise_for_state()
    assert result.counts == {"succeeded": 22}
    assert (result.attempts, house.hits("ending", 22)) == (1, [1] * 22)


class RedisStoreOf:
    def __init__(self, url: str) -> None:
        self._store = RedisStore(url)

    def __enter__(self) -> RedisStore:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_given_a_sink_then_the_items_are_one_shard_and_the_result_says_where(
    house: House, kind: str
) -> None:
    sink = f"file://{house.folder}/shards/run 1/".replace(" ", "%20")
    if kind == "s3":
        sink = "s3://bucket/shards/run%201/"
    images = house.images(f"sunk-{kind}", GOOD, [Reply(404)])
    chunk = CaptionChunk(job_id=f"sunk-{kind}", images=images, sink=sink)
    result = house.client.submit(chunk).result(TIMEOUT_S).raise_for_state()

    assert result.shard == f"{sink}sunk-{kind}.jsonl"
    assert (result.items, result.counts) == (None, {"succeeded": 1, "http_4xx": 1})
    root = house.folder / "shards" if kind == "file" else house.folder / "s3/bucket/shards"
    (shard,) = (root / "run 1").iterdir()
    items = [ItemResult.model_validate_json(line) for line in shard.read_text().splitlines()]
    assert told(tuple(items)) == [(0, "succeeded", 1), (1, "http_4xx", 1)]


def test_given_a_sink_that_is_away_then_the_images_do_not_run_again_and_the_shard_comes_later(
    house: House,
) -> None:
    (house.folder / "shards").rename(house.folder / "elsewhere")
    images = house.images("full", GOOD, GOOD)
    sink = f"file://{house.folder}/shards/full/"
    handle = house.client.submit(CaptionChunk(job_id="full", images=images, sink=sink))
    until(lambda: delayed(house.url) == 1)
    (house.folder / "elsewhere").rename(house.folder / "shards")
    result = handle.result(TIMEOUT_S).raise_for_state()
    assert result.attempts >= 2
    assert (house.hits("full", 2), result.counts) == ([1, 1], {"succeeded": 2})
    assert len((house.folder / "shards/full/full.jsonl").read_text().splitlines()) == 2


def test_given_a_worker_killed_after_it_wrote_the_shard_then_the_next_writes_the_same_one(
    house: House,
) -> None:
    images = house.images("twice", GOOD, GOOD)
    sink = f"file://{house.folder}/shards/twice/"
    with redis.Redis.from_url(house.url) as client:
        handle = house.client.submit(CaptionChunk(job_id="twice", images=images, sink=sink))
        shard = house.folder / "shards/twice/twice.jsonl"
        until(shard.exists)
        handle.result(TIMEOUT_S)
        first = shard.read_bytes()
        # as it was when the worker had written the shard, and not yet its result
        items = [ItemResult.model_validate_json(line) for line in first.splitlines()]
        client.hdel("captionq:job:twice", "result")
        client.hset("captionq:job:twice", "state", "running")
    with RedisStoreOf(house.url) as store:
        store.settle("twice", items)
    sent = house.celery.send_task("captionq.caption_chunk", kwargs={"job": {"recorded": "twice"}})
    assert sent.get(timeout=TIMEOUT_S)["shard"] == f"{sink}twice.jsonl"
    assert [path.read_bytes() for path in shard.parent.iterdir()] == [first]
    assert house.hits("twice", 2) == [1, 1]


def test_given_a_sink_that_is_not_allowed_then_the_chunk_fails_at_once(house: House) -> None:
    images = house.images("elsewhere", GOOD)
    for sink in ("s3://bucket/other/", "s3://other/shards/", "file:///tmp/"):
        result = house.client.submit(CaptionChunk(images=images, sink=sink)).result(TIMEOUT_S)
        assert result.error is not None
        assert result.error.code == "sink_not_allowed"
    assert house.hits("elsewhere", 1) == [0]


def test_given_a_chunk_that_ended_its_workers_then_its_letter_holds_its_images_and_is_replayed(
    house: House,
) -> None:
    images = house.images("poison", GOOD, GOOD)
    chunk: Chunk = CaptionChunk(job_id="poison", images=images)
    with RedisStoreOf(house.url) as store:
        for _ in range(3):
            store.start("poison", "caption_chunk", 1, "dead", utcnow())
    sent = house.celery.send_task(
        "captionq.caption_chunk", kwargs={"job": chunk.model_dump(mode="json")}
    )
    with pytest.raises(Exception, match="job_poisoned"):
        sent.get(timeout=TIMEOUT_S)
    letters = DeadLetters(house.url)
    letter = letters.get("poison")
    assert letter is not None
    assert json.loads(letter.job or "")["images"] == list(images)
    with Client(house.url) as client:
        assert letters.replay(letter, lambda job: client._publisher.publish([job], _soon()))
    letters.close()
    assert house.client.result("poison", TIMEOUT_S).counts == {"succeeded": 2}


def _soon() -> float:
    return time.monotonic() + 10


def test_given_a_chunk_that_the_broker_lost_then_it_is_found_by_its_record_and_runs(
    house: House,
) -> None:
    house.restart(CAPTIONQ_RECONCILE_EVERY_S="0.2")
    chunk = CaptionChunk(job_id="lost", images=house.images("lost", GOOD), submitted_at=utcnow())
    with RedisStoreOf(house.url) as store, redis.Redis.from_url(house.url) as client:
        store.create(chunk)
        now: Any = client.time()
        then_ms = (now[0] - 300) * 1_000
        client.hset("captionq:job:lost", "opened_ms", then_ms)
        client.zadd("captionq:open:captionq.caption.bulk", {"captionq:job:lost": then_ms})
        (result,) = store.wait(["lost"], TIMEOUT_S)
    assert result.counts == {"succeeded": 1}


def test_given_workers_with_keys_then_a_signed_chunk_runs_and_others_do_not(house: House) -> None:
    house.restart(CAPTIONQ_SIGNING_KEYS=KEY)
    settings = ProducerSettings(broker_url=house.url, signing_keys=KEY)
    with Client(settings=settings) as signing:
        signed = CaptionChunk(images=house.images("signed", GOOD, [Reply(503), Reply(200, PNG)]))
        assert signing.submit(signed).result(TIMEOUT_S).counts == {"succeeded": 2}
        # one whose record was tampered with, before its message is taken
        house.worker.stop()
        tampered = signing.submit(CaptionChunk(images=house.images("before", GOOD)))
    record = house.client.status(tampered.job_id)
    assert record is not None
    text = (record.job or "").replace("/before/", "/after/")
    house.images("after", GOOD)
    with redis.Redis.from_url(house.url) as client:
        client.hset(f"captionq:job:{tampered.job_id}", "job", text)
    keyless = house.client.submit(CaptionChunk(images=house.images("keyless", GOOD)))
    house.restart(CAPTIONQ_SIGNING_KEYS=KEY)
    for handle in (tampered, keyless):
        result: JobResult = handle.result(TIMEOUT_S)
        assert result.error is not None
        assert result.error.code == "signature_invalid"
    forged = house.celery.send_task(
        "captionq.caption_chunk", kwargs={"job": {"recorded": "not-yet"}}
    )
    with pytest.raises(Exception, match="job_expired"):
        forged.get(timeout=TIMEOUT_S)
    assert house.client.status("not-yet") is None
    assert [house.hits(name, 1) for name in ("before", "after", "keyless")] == [[0]] * 3
