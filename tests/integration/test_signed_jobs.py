"""Signed jobs on a real Redis, with a real worker that holds keys: what runs, and what does not."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import pytest
import redis
from celery import Celery

from producer import AsyncClient, CaptionJob, Client, ErrorCode, JobFailed, JobState
from producer.contract import Job
from producer.embedded import RedisServer
from producer.redis_store import RedisStore
from producer.settings import ProducerSettings
from producer.signing import Keys, Verifier, new_key
from producer.submission import prepared
from tests.house import PNG
from tests.servers import Reply, ScriptedHttp
from tests.stand_in_worker import messages
from tests.worker_process import WorkerProcess
from worker.bench.processes import free_port
from worker.deadletter import DeadLetters

OLD, NEW, STRANGE = new_key("old"), new_key("new"), new_key("strange")
TIMEOUT_S = 60


@dataclass(frozen=True)
class House:
    """A worker that holds the old key and the new one, and clients with and without."""

    url: str
    web: ScriptedHttp
    worker: WorkerProcess
    store: RedisStore
    signing: Client
    keyless: Client
    celery: Celery
    port: int

    def letters_counted(self) -> float:
        """Those of jobs that no key has signed."""
        series = 'captionq_dead_letters_total{code="signature_invalid"}'
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            (line,) = (line for line in answer.read().decode().splitlines() if series in line)
        return float(line.split()[-1])

    def count(self, path: str) -> str:
        """The address of an image of its own, so that its fetches can be counted."""
        self.web.routes[path] = [Reply(200, PNG)]
        return self.web.url(path)

    def lose(self, job: Job) -> None:
        """Record a job five minutes ago, and send no message."""
        self.store.create(job)
        with redis.Redis.from_url(self.url) as client:
            then_ms = (client.time()[0] - 300) * 1_000  # type: ignore[index]
            key = f"captionq:job:{job.job_id}"
            client.hset(key, "opened_ms", then_ms)
            client.zadd("captionq:open:captionq.caption", {key: then_ms})


def settings(url: str, keys: str | None) -> ProducerSettings:
    return ProducerSettings(broker_url=url, signing_keys=keys)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("signed")
    with RedisServer(folder / "redis") as broker, ScriptedHttp() as web:
        environment = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{web.port}",
            "CAPTIONQ_MATCH_MODEL": "none",
            "CAPTIONQ_MAX_BATCH": "2",
            "CAPTIONQ_RECONCILE_EVERY_S": "0.2",
            "CAPTIONQ_SIGNING_KEYS": f"{OLD},{NEW}",
            "CAPTIONQ_METRICS_PORT": str(port := free_port()),
        }
        with (
            WorkerProcess(folder / "worker.log", environment) as worker,
            Client(settings=settings(broker.url, NEW)) as signing,
            Client(settings=settings(broker.url, None)) as keyless,
            Celery("theirs", broker=broker.url, backend=broker.url, set_as_current=False) as celery,
        ):
            store = RedisStore(broker.url)
            yield House(broker.url, web, worker, store, signing, keyless, celery, port)
            store.close()
        for key in (OLD, NEW):
            assert key.partition(":")[2] not in worker.log
        assert "jobs have to be signed, by any of these keys: old, new" in worker.log


def test_given_a_client_with_a_key_then_its_job_runs(house: House) -> None:
    result = house.signing.submit(CaptionJob(image=house.count("/signed.png"))).result(TIMEOUT_S)
    assert result.state is JobState.SUCCEEDED


def test_given_a_host_that_is_busy_once_then_the_signed_job_is_tried_again_and_runs(
    house: House,
) -> None:
    house.web.routes["/busy.png"] = [Reply(503), Reply(200, PNG)]
    result = house.signing.submit(CaptionJob(image=house.web.url("/busy.png"))).result(TIMEOUT_S)
    assert (result.state, result.attempts) == (JobState.SUCCEEDED, 2)


def test_given_a_signed_job_that_the_broker_lost_then_it_is_sent_again_and_runs(
    house: House,
) -> None:
    job = CaptionJob(job_id="lost", image=house.count("/lost.png"))
    house.lose(prepared(job, Keys.parse(OLD)))
    (result,) = house.store.wait(["lost"], TIMEOUT_S)
    assert result.state is JobState.SUCCEEDED
    assert "job lost is sent again" in house.worker.log


def test_given_a_record_that_a_forger_wrote_then_what_the_reconciler_sends_of_it_is_refused(
    house: House,
) -> None:
    """Else the worker, which has the keys, could be made to vouch for whatever lies in Redis."""
    genuine = prepared(CaptionJob(job_id="forged", image=house.count("/f.png")), Keys.parse(NEW))
    house.lose(genuine.model_copy(update={"image": house.count("/forged.png")}))
    (result,) = house.store.wait(["forged"], TIMEOUT_S)
    assert (result.state, result.attempts) == (JobState.FAILED, 0)
    assert result.error is not None
    assert result.error.code is ErrorCode.SIGNATURE_INVALID
    assert house.worker.log.count("job forged is sent again") == 1
    assert house.web.hits("/forged.png") == 0


def test_given_a_plain_celery_client_then_its_unsigned_job_is_refused_and_kept(
    house: House,
) -> None:
    before = house.letters_counted()
    job = {"image": house.count("/plain.png"), "job_id": "plain"}
    sent = house.celery.send_task("captionq.caption", kwargs={"job": job})
    with pytest.raises(Exception, match="signature_invalid") as failure:
        sent.get(timeout=TIMEOUT_S)
    assert "JobFailed" in type(failure.value).__name__
    assert house.web.hits("/plain.png") == 0
    assert house.store.get("plain") is None
    letters = DeadLetters(house.url)
    letter = letters.get("plain")
    letters.close()
    assert letter is not None
    assert (letter.code, letter.reason) == ("signature_invalid", "it is not signed")
    assert json.loads(letter.job or "") == job
    assert house.letters_counted() == before + 1


def test_given_a_plain_celery_client_that_signs_what_it_sends_then_its_job_runs(
    house: House,
) -> None:
    """Fields that it leaves out are no part of what is signed, and get their defaults here."""
    job: dict[str, Any] = {"image": house.count("/theirs.png"), "job_id": "theirs"}
    job["signature"] = Keys.parse(NEW).sign("caption", job, time.time())
    sent = house.celery.send_task("captionq.caption", kwargs={"job": job})
    assert sent.get(timeout=TIMEOUT_S)["state"] == "succeeded"


def test_given_a_client_without_a_key_then_it_is_told_at_once(house: House) -> None:
    handle = house.keyless.submit(CaptionJob(image=house.count("/keyless.png")))
    with pytest.raises(JobFailed) as failure:
        handle.result(TIMEOUT_S).raise_for_state()
    assert failure.value.code is ErrorCode.SIGNATURE_INVALID
    assert house.web.hits("/keyless.png") == 0


def test_given_a_forged_message_under_a_genuine_jobs_id_then_that_job_still_runs(
    house: House,
) -> None:
    job = prepared(CaptionJob(job_id="both", image=house.count("/both.png")), Keys.parse(NEW))
    house.store.create(job)
    other = job.model_dump(mode="json") | {"image": house.count("/other.png")}
    forged = house.celery.send_task(
        "captionq.caption", kwargs={"job": other}, task_id="both", expires=-60
    )
    house.worker.wait_for_log("job 'both' is refused: its signature is wrong", TIMEOUT_S)
    genuine = house.celery.send_task(
        "captionq.caption", kwargs={"job": job.model_dump(mode="json")}, task_id="genuine"
    )
    assert genuine.get(timeout=TIMEOUT_S)["state"] == "succeeded"
    assert house.store.get("both").state is JobState.SUCCEEDED  # type: ignore[union-attr]
    assert (house.web.hits("/both.png"), house.web.hits("/other.png")) == (1, 0)
    forged.forget()


def test_given_a_job_that_has_ended_when_its_message_is_replayed_then_it_does_not_run_again(
    house: House,
) -> None:
    job = CaptionJob(job_id="once", image=house.count("/once.png"))
    assert house.signing.submit(job).result(TIMEOUT_S).state is JobState.SUCCEEDED
    record = house.store.get("once")
    assert record is not None
    message = {"job": json.loads(record.job or "")}
    replayed = house.celery.send_task("captionq.caption", kwargs=message)
    assert replayed.get(timeout=TIMEOUT_S)["job_id"] == "once"
    assert house.web.hits("/once.png") == 1


# Clients


async def test_given_an_asyncio_client_with_a_key_then_message_and_record_are_signed(
    redis_server: RedisServer,
) -> None:
    async with AsyncClient(settings=settings(redis_server.url, NEW)) as client:
        handle = await client.submit(CaptionJob(image="https://example.com/a.png"))
        record = await client.status(handle.job_id)
    with redis.Redis.from_url(redis_server.url) as broker:
        (message,) = messages(broker, "captionq.caption")
    assert record is not None
    for job in (message["kwargs"]["job"], json.loads(record.job or "")):
        verifier = Verifier(Keys.parse(f"{STRANGE},{NEW}"))
        assert verifier.verified("caption", handle.job_id, job) == job
