"""The whole service under docker/redis/users.acl: each part has what it needs, and no more."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest
import redis
from celery import Celery, group

from producer import AsyncClient, CaptionChunk, CaptionJob, Client, JobState
from producer.callback import Callback
from producer.event_memory import EventMemory, Sighting
from producer.object_event import ObjectEvent
from producer.redis_at import async_redis_at
from producer.result_stream import START, ResultStream
from producer.settings import ProducerSettings
from tests.flower_process import flower_at, get, until
from tests.gateway_process import GatewayProcess
from tests.house import House, open_house
from tests.redis_users import USERS, ServerOfUsers, rendered
from tests.servers import Reply
from worker.bench.processes import free_port
from worker.deadletter import DeadLetters

TIMEOUT_S = 60
METRICS_PORT = free_port()
EVENT = {
    "Records": [
        {
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": "photos"},
                "object": {"key": "a.png", "eTag": "1", "sequencer": "0A"},
            },
        }
    ]
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> ServerOfUsers:
    return ServerOfUsers(tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="module")
def guarded_house(
    guarded: ServerOfUsers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with open_house(
        tmp_path_factory.mktemp("house"),
        guarded,
        CAPTIONQ_RESULT_STREAM="100",
        CAPTIONQ_RECONCILE_EVERY_S="1",
        CAPTIONQ_RESULT_CACHE_TTL_S="60",
        CAPTIONQ_METRICS_PORT=str(METRICS_PORT),
    ) as opened:
        yield opened


@pytest.fixture
def producer(guarded: ServerOfUsers, guarded_house: House) -> Iterator[Client]:
    settings = ProducerSettings(result_stream=100)
    with Client(guarded.url_of("producer"), settings=settings) as client:
        yield client


async def test_given_the_rights_of_a_producer_jobs_go_their_whole_way(
    guarded: ServerOfUsers, guarded_house: House, producer: Client
) -> None:
    web = guarded_house.web
    told = Callback(url=web.url("/told"))
    good = producer.submit(CaptionJob(image=web.url("/ok.png"), callback=told))
    tried_again = producer.submit(CaptionJob(image=web.url("/busy.png"), lane="bulk"))
    chunk = producer.submit(CaptionChunk(images=(web.url("/ok.png"),) * 2))
    web.routes["/never.png"] = [Reply(503)]
    bad = producer.submit(CaptionJob(image=web.url("/never.png")))
    cancelled = producer.submit(CaptionJob(image=web.url("/ok.png"), model="of/nobody"))
    assert cancelled.cancel().state is JobState.CANCELLED
    assert good.result(TIMEOUT_S).captions
    assert tried_again.result(TIMEOUT_S).attempts == 3
    assert chunk.result(TIMEOUT_S).counts == {"succeeded": 2}
    assert bad.result(TIMEOUT_S).state is JobState.FAILED
    async with AsyncClient(guarded.url_of("producer")) as client:
        handle = await client.submit(CaptionJob(image=web.url("/ok.png")))
        assert (await handle.result(TIMEOUT_S)).captions
    until(lambda: web.hits("/told"))
    with closing(
        ResultStream(guarded.url_of("producer"), begin=START, group="g", consumer="one")
    ) as stream:
        found = stream.read()
        stream.acknowledge(found)
    assert good.job_id in {one.job_id for one in found}
    with closing(DeadLetters(guarded.url_of("operator"))) as letters:
        assert bad.job_id in {one.job_id for one in letters.find(limit=10)}
    assert guarded.denials() == []


def test_given_the_rights_of_a_worker_its_metrics_are_whole(
    guarded: ServerOfUsers, guarded_house: House
) -> None:
    with urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'captionq_redis_up{role="broker"} 1.0' in text
    assert 'captionq_redis_up{role="results"} 1.0' in text
    assert "captionq_redis_memory_used_bytes NaN" not in text
    assert "\ncaptionq_redis_memory_used_bytes " in text
    assert guarded.denials() == []


def test_given_its_rights_a_plain_celery_client_has_its_result(
    guarded: ServerOfUsers, guarded_house: House
) -> None:
    url = guarded.url_of("producer")
    with Celery("plain", broker=url, backend=url, set_as_current=False) as app:
        sent = app.send_task(
            "captionq.caption", [{"image": guarded_house.web.url("/ok.png")}], countdown=0.1
        )
        assert sent.get(timeout=TIMEOUT_S)["captions"][0]["text"]
        sent.forget()
        job = app.signature("captionq.caption", [{"image": guarded_house.web.url("/ok.png")}])
        assert len(group([job, job.clone()]).apply_async().get(timeout=TIMEOUT_S)) == 2
    assert guarded.denials() == []


def test_given_the_rights_of_a_gateway_it_takes_jobs_and_events(
    guarded: ServerOfUsers, guarded_house: House, producer: Client, tmp_path: Path
) -> None:
    with (
        GatewayProcess(guarded.url_of("gateway"), tmp_path / "log") as gateway,
        gateway.client() as http,
    ):
        job = {"task": "caption", "image": guarded_house.web.url("/ok.png")}
        headers = {"Prefer": "wait=30", "Idempotency-Key": "one"}
        assert http.post("/v1/jobs", json=job, headers=headers).json()["state"] == "succeeded"
        batch = http.post("/v1/jobs:batch", json={"jobs": [job, job]})
        assert batch.status_code == 202, batch.text
        assert http.get(f"/v1/batches/{batch.json()['batch_id']}").status_code == 200
        waiting = http.post("/v1/jobs:batch", json={"jobs": [job | {"model": "of/nobody"}]}).json()
        assert producer.cancel(waiting["job_ids"][0]).state is JobState.CANCELLED
        ended = http.get(f"/v1/batches/{waiting['batch_id']}").json()
        assert ended["counts"]["cancelled"] == 1
        assert http.get("/v1/jobs").json()["jobs"]
        assert http.get("/v1/service").status_code == 200
        assert http.get("/readyz").status_code == 200
        assert http.post("/hooks/s3", json=EVENT).status_code == 200
        assert http.post("/hooks/s3", json=EVENT).status_code == 200
    assert guarded.denials() == []


async def test_given_the_rights_of_a_gateway_a_listener_forgets_hears_and_buries(
    guarded: ServerOfUsers, guarded_house: House
) -> None:
    event = ObjectEvent("aws", "created", "photos", "b.png", sequencer="0B", etag="2")
    async with async_redis_at(guarded.url_of("gateway"), decode_responses=True) as connections:
        memory = EventMemory(connections)
        assert await memory.see([event]) == [Sighting.NEW]
        await memory.told([event])
        await memory.untold([event])
        await memory.hear("a message", 60)
        assert await memory.heard("a message")
        await memory.bury("no event", "sqs", "nothing in it")
    with closing(DeadLetters(guarded.url_of("operator"))) as letters:
        assert "nothing in it" in {one.reason for one in letters.find(limit=10)}
    assert guarded.denials() == []


def test_given_the_rights_of_flower_it_sees_workers_and_tasks(
    guarded: ServerOfUsers, guarded_house: House, producer: Client, tmp_path: Path
) -> None:
    with flower_at(tmp_path, {"CAPTIONQ_BROKER_URL": guarded.url_of("flower")}) as flower:
        until(lambda: json.loads(get(flower, "/api/workers?refresh=1")))
        handle = producer.submit(CaptionJob(image=guarded_house.web.url("/ok.png")))
        handle.result(TIMEOUT_S)
        until(lambda: json.loads(get(flower, f"/api/task/info/{handle.job_id}"))["result"])
        until(lambda: b"captionq.caption.bulk" in get(flower, "/broker"))
    assert guarded.denials() == []


NOBODY = (
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "SET", "appendonly", "no"), ("KEYS", "*"),
    ("SHUTDOWN",), ("ACL", "SETUSER", "me", "on"), ("SAVE",),
    ("REPLICAOF", "h", "1"), ("MIGRATE", "h", "1", "k", "0", "1"), ("MONITOR",),
)  # fmt: skip
QUEUE = "captionq.caption"
HARM: tuple[tuple[str, ...], ...] = (
    ("RPOP", QUEUE), ("BRPOP", QUEUE, "0.01"), ("LRANGE", QUEUE, "0", "-1"), ("DEL", QUEUE),
    ("SET", QUEUE, "a"), ("PEXPIRE", QUEUE, "1"), ("HGETALL", "captionq.inflight"),
    ("ZADD", "captionq.leases", "1", "a"), ("XRANGE", "captionq:dead", "-", "+"),
    ("DEL", "captionq:dead"), ("GET", "captionq:cache:x"), ("GET", "another"),
    ("SET", "captionq:worker:a", "{}"), ("CLIENT", "TRACKING", "ON", "BCAST"),
    ("BRPOP", "test@localhost.celery.pidbox", "0.01"),
)  # fmt: skip
"""What takes jobs from their queues, ends them, or shows who is at work on what."""
FORGED = (
    ("SUBSCRIBE", "/0.celery.pidbox"), ("PUBLISH", "/0.celery.pidbox", "{}"),
    ("PUBLISH", "/0.celeryev/worker.heartbeat", "{}"),
)  # fmt: skip
REFUSED: dict[str, tuple[tuple[str, ...], ...]] = dict.fromkeys(USERS, NOBODY)
REFUSED["producer"] += (*HARM, *FORGED, ("XADD", "captionq:dead", "*", "a", "b"))
REFUSED["gateway"] += (*HARM, *FORGED, ("GET", "celery-task-meta-x"))
REFUSED["worker"] += (("GET", "another"), ("PUBLISH", "another", "x"), ("SCAN", "0"))
REFUSED["flower"] += (
    *HARM, ("HGETALL", "captionq:job:x"), ("DEL", "captionq:jobs"), ("LPUSH", QUEUE, "a"),
)  # fmt: skip
REFUSED["scaler"] += (
    *HARM, *FORGED, ("LPUSH", QUEUE, "a"), ("HGETALL", "captionq:job:x"), ("LLEN", "another"),
    ("ZRANGE", "captionq:callbacks", "0", "-1"),
)  # fmt: skip


def test_given_the_rights_of_a_scaler_keda_has_the_length_of_a_list(
    guarded: ServerOfUsers,
) -> None:
    """Its redis trigger sends a script that looks at the type first."""
    asked = {
        **dict.fromkeys(("captionq.caption", "captionq.match.bulk", "celery"), "llen"),
        "captionq.inflight": "hlen",
        **dict.fromkeys(("captionq.delayed", "captionq:callbacks"), "zcard"),
    }
    with redis.Redis.from_url(guarded.url_of("scaler")) as client:
        for key, command in asked.items():
            script = f"return {{redis.call('type', KEYS[1]).ok, redis.call('{command}', KEYS[1])}}"
            kind, length = client.eval(script, 1, key)
            assert (kind == b"none") == (length == 0)


@pytest.mark.parametrize("user", USERS)
def test_given_a_user_what_is_none_of_its_part_is_refused(
    guarded: ServerOfUsers, guarded_house: House, user: str
) -> None:
    allowed = [command for command in REFUSED[user] if not guarded.refuses(user, *command)]
    assert allowed == []
    with guarded._address.client() as keeper:
        keeper.acl_log_reset()


def test_given_no_password_nobody_comes_in(guarded: ServerOfUsers, guarded_house: House) -> None:
    with (
        redis.Redis(port=guarded._address.port) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_given_a_user_without_a_password_it_is_off_and_the_file_holds_none() -> None:
    made = rendered({"worker": "a secret word"})
    assert "a secret word" not in made
    users = {line.split()[1]: line.split()[2] for line in made.splitlines()}
    assert users == {"default": "off", "worker": "on"} | dict.fromkeys({*USERS} - {"worker"}, "off")
