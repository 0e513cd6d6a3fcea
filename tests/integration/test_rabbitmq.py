"""The whole service with RabbitMQ as its broker, results in Redis."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from producer import AsyncClient, CaptionChunk, CaptionJob, JobState
from producer.rabbitmq import celery_settings
from producer.redis_server import RedisServer
from producer.settings import ProducerSettings
from tests.house import PNG, House, open_house
from tests.rabbit_server import RabbitServer, missing
from tests.servers import Reply
from tests.worker_process import WorkerProcess

TIMEOUT_S = 60
JOBS = 6


@pytest.fixture(scope="module", params=["priority", "quorum"])
def rabbit_house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("rabbit")
    redis = RedisServer(folder / "results")
    with (
        RabbitServer(folder / "rabbit") as rabbit,
        open_house(
            folder,
            redis,
            CAPTIONQ_BROKER_URL=rabbit.url,
            CAPTIONQ_RESULTS_URL=redis.url,
            CAPTIONQ_RABBITMQ_QUEUES=request.param,
        ) as opened,
    ):
        yield opened


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


def test_given_rabbitmq_a_killed_workers_jobs_run_elsewhere_at_once(
    rabbit_house: House, tmp_path: Path
) -> None:
    """Its connection ends with it, and so its messages are others'."""
    client, web = rabbit_house.client, rabbit_house.web
    web.routes["/slow.png"] = [Reply(200, PNG, delay_s=3)]
    with WorkerProcess(tmp_path / "log", rabbit_house.environment, name="killed") as second:
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
