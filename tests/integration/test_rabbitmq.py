"""The whole service with RabbitMQ as its broker, results in Redis."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from celery import Celery

from producer import AsyncClient, CaptionChunk, CaptionJob, JobState
from producer.errors import BrokerUnavailable
from producer.ledger import Ledger
from producer.rabbitmq import celery_settings
from producer.redis_at import redis_at
from producer.redis_store import RedisStore
from producer.settings import ProducerSettings
from tests.house import PNG, House
from tests.rabbit_server import missing
from tests.rabbit_server import rabbit_house as opened
from tests.servers import Reply
from tests.worker_process import WorkerProcess
from worker.bench.processes import free_port
from worker.rabbit import HELD_MS, RabbitQueues

TIMEOUT_S = 60
JOBS = 6
METRICS_PORT = free_port()


@pytest.fixture(scope="module", params=["priority", "quorum"])
def rabbit_house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("rabbit")
    watched = {
        "CAPTIONQ_RECONCILE_EVERY_S": "1",
        "CAPTIONQ_METRICS_PORT": str(METRICS_PORT),
    }
    with opened(folder, request.param, **watched) as (_, house):
        yield house


async def test_given_rabbitmq_jobs_of_all_clients_run_and_retries_wait_their_time(
    rabbit_house: House,
) -> None:
    client, web = rabbit_house.client, rabbit_house.web
    good = client.submit(CaptionJob(image=web.url("/ok.png"), lane="bulk"))
    bad = client.submit(CaptionJob(image=web.url("/missing.png")))
    busy = client.submit(CaptionJob(image=web.url("/busy.png")))
    chunk = client.submit(CaptionChunk(images=(web.url("/ok.png"),) * 3))
    assert good.result(TIMEOUT_S).captions
    failed = bad.result(TIMEOUT_S)
    assert failed.error is not None
    assert failed.error.code == "http_4xx"
    assert busy.result(TIMEOUT_S).attempts == 3
    assert chunk.result(TIMEOUT_S).counts == {"succeeded": 3}
    url = rabbit_house.environment["CAPTIONQ_BROKER_URL"]
    kind: Any = rabbit_house.environment["CAPTIONQ_RABBITMQ_QUEUES"]
    settings = ProducerSettings(rabbitmq_queues=kind)
    async with AsyncClient(url, rabbit_house.broker.url, settings=settings) as other:
        handle = await other.submit(CaptionJob(image=web.url("/ok.png")))
        assert (await handle.result(TIMEOUT_S)).state is JobState.SUCCEEDED


def test_given_rabbitmq_a_plain_celery_client_has_its_result(rabbit_house: House) -> None:
    url = rabbit_house.environment["CAPTIONQ_BROKER_URL"]
    kind: Any = rabbit_house.environment["CAPTIONQ_RABBITMQ_QUEUES"]
    job = {"image": rabbit_house.web.url("/ok.png")}
    with Celery("plain", broker=url, backend=rabbit_house.broker.url, set_as_current=False) as app:
        app.conf.update(celery_settings(url, kind))
        sent = app.send_task("captionq.caption", [job], queue="captionq.caption")
        assert sent.get(timeout=TIMEOUT_S)["captions"][0]["text"]
        sent.forget()


def test_given_rabbitmq_of_priorities_the_higher_one_goes_first(rabbit_house: House) -> None:
    if rabbit_house.environment["CAPTIONQ_RABBITMQ_QUEUES"] != "priority":
        pytest.skip("queues of RabbitMQ that are replicated know no priorities")
    url = rabbit_house.environment["CAPTIONQ_BROKER_URL"]
    job = {"image": rabbit_house.web.url("/ok.png")}
    with Celery("plain", broker=url, backend=rabbit_house.broker.url, set_as_current=False) as app:
        app.conf.update(celery_settings(url, "priority"))
        app.control.cancel_consumer("captionq.caption", reply=True, timeout=TIMEOUT_S, limit=1)
        sent = {
            priority: app.send_task(
                "captionq.caption", [job], queue="captionq.caption", priority=priority
            )
            for priority in (0, 9, 5)
        }
        with app.connection() as connection, connection.channel() as channel:
            waiting = [channel.basic_get("captionq.caption") for _ in sent]
            order = [message.headers["id"] for message in waiting]
            assert order == [sent[priority].id for priority in (9, 5, 0)]
        app.control.add_consumer("captionq.caption", reply=True, timeout=TIMEOUT_S, limit=1)
        for one in sent.values():
            assert one.get(timeout=TIMEOUT_S)["captions"]
            one.forget()


def test_given_rabbitmq_the_depth_of_its_queues_is_measured(rabbit_house: House) -> None:
    url = rabbit_house.environment["CAPTIONQ_BROKER_URL"]
    rabbit_house.client.submit(CaptionJob(image="https://example.com/a.png", model="of/nobody"))
    queue = "captionq.caption.of-nobody"
    with closing(RabbitQueues(url)) as queues:
        assert queues.depths([queue, "captionq.caption", "not there"]) == {
            queue: 1, "captionq.caption": 0, "not there": 0
        }  # fmt: skip
        assert (queues.next_in_line(queue), queues.next_in_line("not there")) == ([[]], [])
    with urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10) as answer:
        said = answer.read().decode()
    assert 'captionq_queue_depth{lane="interactive",queue="captionq.caption"} 0.0' in said
    assert "captionq_messages{" not in said


def test_given_rabbitmq_a_job_whose_message_never_came_is_sent(rabbit_house: House) -> None:
    """As if its producer had died between recording and sending it, a while ago."""
    job = CaptionJob(job_id="never-sent", image=rabbit_house.web.url("/ok.png"))
    store = RedisStore(rabbit_house.broker.url)
    ledger = Ledger(60, 60)
    with closing(store), redis_at(rabbit_house.broker.url) as client:
        store.create(job)
        seconds, _ = client.time()
        index = ledger.open_key("captionq.caption")
        client.zadd(index, {ledger.key("never-sent"): (seconds * 1_000) - HELD_MS})
    assert rabbit_house.client.result("never-sent", TIMEOUT_S).captions


def test_given_rabbitmq_is_away_its_queues_say_so() -> None:
    with closing(RabbitQueues("amqp://127.0.0.1:1//")) as queues:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                queues.depths(["captionq.caption"])


def test_given_rabbitmq_a_killed_workers_jobs_run_elsewhere_at_once(
    rabbit_house: House, tmp_path: Path
) -> None:
    """Its connection ends with it, and so its messages are others'."""
    client, web = rabbit_house.client, rabbit_house.web
    web.routes["/slow.png"] = [Reply(200, PNG, delay_s=3)]
    unmeasured = {k: v for k, v in rabbit_house.environment.items() if "METRICS" not in k}
    with WorkerProcess(tmp_path / "log", unmeasured, name="killed") as second:
        jobs = [CaptionJob(image=web.url(f"/slow.png?{n}")) for n in range(JOBS)]
        handles = client.submit_many(jobs)
        deadline_s = time.monotonic() + TIMEOUT_S
        while web.hits("/slow.png") < JOBS:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        second.process.kill()
    results = [handle.result(TIMEOUT_S) for handle in handles]
    assert {(one.state, one.attempts) for one in results} == {(JobState.SUCCEEDED, 1)}
    assert web.hits("/slow.png") > JOBS
