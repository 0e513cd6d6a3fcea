"""The whole service behind three Sentinels: found by URL, and after its master was killed."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from producer import AsyncClient, CaptionJob, JobState
from producer.celery_app import celery_app
from producer.client import JobHandle
from producer.settings import ProducerSettings
from tests.flower_process import flower_at, get
from tests.flower_process import until as seen
from tests.house import House, open_house
from tests.redis_family import MASTER, Family, family, until
from worker.bench.processes import free_port
from worker.transport import transport_for

TIMEOUT_S = 150
"""A message that was lost with the master is sent again after a quiet minute."""

JOBS = 60
METRICS_PORT = free_port()


@pytest.fixture(scope="module")
def relatives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    with family(tmp_path_factory.mktemp("family")) as started:
        yield started


@pytest.fixture(scope="module")
def watched(relatives: Family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(
        tmp_path_factory.mktemp("house"),
        CAPTIONQ_BROKER_URL=relatives.url,
        CAPTIONQ_SENTINEL_MASTER=MASTER,
        CAPTIONQ_RECONCILE_EVERY_S="1",
        CAPTIONQ_METRICS_PORT=str(METRICS_PORT),
    ) as opened:
        yield opened


async def test_given_urls_of_sentinels_both_clients_have_results(watched: House) -> None:
    settings = ProducerSettings(sentinel_master=MASTER)
    url = watched.environment["CAPTIONQ_BROKER_URL"]
    async with AsyncClient(url, settings=settings) as client:
        handle = await client.submit(CaptionJob(image=watched.web.url("/busy.png")))
        assert (await handle.result(TIMEOUT_S)).attempts == 3
    image = watched.web.url("/ok.png")
    assert watched.client.submit(CaptionJob(image=image)).result(TIMEOUT_S).captions


def test_given_urls_of_sentinels_the_depth_of_queues_is_measured(watched: House) -> None:
    with urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10) as answer:
        said = answer.read().decode()
    assert 'captionq_redis_up{role="broker"} 1.0' in said
    assert 'captionq_queue_depth{lane="bulk",queue="captionq.caption.bulk"} 0.0' in said


def test_given_urls_of_sentinels_flower_sees_workers_and_queues_but_no_password(
    watched: House, relatives: Family, tmp_path: Path
) -> None:
    environment = {
        "CAPTIONQ_BROKER_URL": relatives.url_of("flower"), "CAPTIONQ_SENTINEL_MASTER": MASTER
    }  # fmt: skip
    with flower_at(tmp_path, environment) as flower:
        seen(lambda: json.loads(get(flower, "/api/workers?refresh=1")))
        assert b"captionq.caption.bulk" in get(flower, "/broker")
        shown = [get(flower, path) for path in ("/", "/worker/test@localhost", "/api/workers")]
    said = b"".join(shown).decode() + (tmp_path / "flower.log").read_text() + watched.worker.log
    assert relatives.sentinels[0].password not in said
    for user in ("worker", "flower"):
        assert relatives.servers[0].login_of(user).partition(":")[2] not in said
        assert relatives.servers[0]._words[user] not in said


@pytest.mark.timeout(300)
def test_given_its_master_is_killed_while_jobs_run_what_its_replica_was_told_of_ends(
    watched: House, relatives: Family
) -> None:
    client, image = watched.client, watched.web.url("/ok.png")

    def submit(name: str) -> list[JobHandle]:
        return client.submit_many(
            [CaptionJob(image=image, job_id=f"{name}{n}") for n in range(JOBS)]
        )

    killed = relatives.servers[0]
    told = submit("told")
    with relatives.client(killed) as master:
        assert master.wait(1, 10_000) == 1
    untold = submit("untold")
    killed.kill()
    until(lambda: relatives.master_port() != killed._address.port, "no failover")
    after = submit("after")
    known = [handle for handle in untold if client.status(handle.job_id) is not None]
    ended = {handle.result(TIMEOUT_S).state for handle in (*told, *known, *after)}
    assert ended == {JobState.SUCCEEDED}
    assert watched.worker.process.poll() is None, watched.worker.log
    with celery_app(relatives.url_of("flower"), MASTER, {}, set_as_current=False) as asking:
        (stats,) = asking.control.inspect(limit=1).stats().values()
    assert stats["broker"]["transport"] == transport_for(relatives.url)
    print(f"{JOBS - len(known)} of {JOBS} submissions of the last moment were lost with the master")
    assert relatives.servers[1].denials() == []
