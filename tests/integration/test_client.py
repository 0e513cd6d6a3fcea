"""The clients against a real Redis: what is sent, what comes back, what happens without it."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import AsyncClient, CaptionJob, Client, JobFailed, JobState, MatchJob
from producer.contract import MAX_MESSAGE_BYTES, ErrorCode, Job, JobResult
from producer.embedded import RedisServer, stop
from producer.errors import BrokerFull, BrokerUnavailable, UnknownJob
from producer.publisher import Publisher, pauses
from producer.redis_store import RedisStore
from producer.settings import ProducerSettings
from producer.store import Record, still_missing
from producer.submission import BATCH, MAX_UNSENT, Unsent, cancellation, prepared, to_send
from tests.stand_in_worker import StandInWorker, messages, succeeded

IMAGE = "https://example.com/cat.jpg"
NOWHERE = "redis://127.0.0.1:1/0"
HURRIED = ProducerSettings(submit_timeout_s=1)


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Client]:
    with Client(redis_server.url) as client:
        yield client


def job(job_id: str | None = None, **fields: Any) -> CaptionJob:
    return CaptionJob(job_id=job_id, image=IMAGE, **fields)


def seconds(call: Callable[[], object], raises: type[BaseException]) -> float:
    began_s = time.monotonic()
    with pytest.raises(raises):
        call()
    return time.monotonic() - began_s


def test_a_job_comes_as_a_celery_message_into_the_queue_of_its_task(
    client: Client, broker: redis.Redis
) -> None:
    handle = client.submit(job("mine"))

    (message,) = messages(broker, "captionq.caption")
    assert handle.job_id == "mine"
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == "captionq.caption"
    assert message["headers"]["id"] == "mine"
    assert message["headers"]["ignore_result"] is True
    assert message["kwargs"]["job"]["image"] == IMAGE
    assert message["kwargs"]["job"]["job_id"] == "mine"


def test_a_job_for_one_model_comes_into_that_models_queue(
    client: Client, broker: redis.Redis
) -> None:
    client.submit(MatchJob(image=IMAGE, texts=("a cat",), model="org/blip"))

    assert broker.llen("captionq.match.org-blip") == 1
    assert broker.llen("captionq.match") == 0


def test_a_job_is_recorded_as_queued_with_the_moment_it_was_submitted(client: Client) -> None:
    before = datetime.now(UTC)

    record = client.submit(job()).status()

    assert record is not None
    assert record.state is JobState.QUEUED
    assert before <= record.created_at <= datetime.now(UTC)
    assert len(record.job_id) == 32


def test_an_id_submitted_twice_is_one_job(client: Client, broker: redis.Redis) -> None:
    first, second = client.submit(job("mine")), client.submit(job("mine"))
    client.submit_many([job("mine"), job("other"), job("other")])

    assert first == second
    assert [m["headers"]["id"] for m in messages(broker, "captionq.caption")] == ["mine", "other"]


async def submitted(kind: type, broker_url: str, results_url: str, job: Job) -> None:
    if kind is Client:
        with Client(broker_url, results_url, settings=HURRIED) as client:
            client.submit(job)
    else:
        async with AsyncClient(broker_url, results_url, settings=HURRIED) as client:
            await client.submit(job)


def test_given_a_redis_that_is_gone_while_a_job_is_sent_submitting_it_again_sends_it(
    tmp_path: Path,
) -> None:
    """It has a record, which could not be taken back, and no message."""
    with (
        RedisServer(tmp_path / "redis") as server,
        Client(server.url, settings=HURRIED) as client,
        redis.Redis.from_url(server.url) as plain,
    ):
        publish = client._publisher.publish

        def cut_off(jobs: Sequence[Job], deadline_s: float) -> None:
            server.kill()
            publish(jobs, deadline_s)

        client._publisher.publish = cut_off  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            client.submit(job("mine"))
        server.start()
        client._publisher.publish = publish  # type: ignore[method-assign]
        assert plain.llen("captionq.caption") == 0
        client.submit(job("mine"))
        assert plain.llen("captionq.caption") == 1
        client.submit(job("mine"))
        assert plain.llen("captionq.caption") == 1


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_given_a_job_recorded_long_ago_submitting_it_again_sends_nothing(
    redis_server: RedisServer, broker: redis.Redis, kind: type
) -> None:
    """Whether it waits in a long queue or was never sent, workers can tell and producers cannot."""
    with closing(RedisStore(redis_server.url)) as store:
        recorded = job("mine", submitted_at=datetime.now(UTC) - timedelta(days=2))
        store.create(recorded)
        before = store.get("mine")

        await submitted(kind, redis_server.url, redis_server.url, job("mine"))

        assert store.get("mine") == before
        assert broker.llen("captionq.caption") == 0


def test_an_id_that_has_ended_is_not_run_again(
    client: Client, redis_server: RedisServer, broker: redis.Redis
) -> None:
    with StandInWorker(redis_server.url):
        ended = client.submit(job("mine")).result(timeout_s=10)

    again = client.submit(job("mine"))

    assert again.result(timeout_s=0) == ended
    assert broker.llen("captionq.caption") == 0


def test_many_jobs_are_sent_in_their_order(client: Client, broker: redis.Redis) -> None:
    ids = [f"job-{n}" for n in range(BATCH + 3)]

    handles = client.submit_many(job(job_id) for job_id in ids)

    assert [handle.job_id for handle in handles] == ids
    assert [m["headers"]["id"] for m in messages(broker, "captionq.caption")] == ids


def test_a_signed_url_is_not_shown_in_task_events(client: Client, broker: redis.Redis) -> None:
    client.submit(CaptionJob(image=f"{IMAGE}?X-Amz-Signature=secret"))

    (message,) = messages(broker, "captionq.caption")
    assert message["headers"]["kwargsrepr"] == IMAGE
    assert "secret" in message["kwargs"]["job"]["image"]


def test_given_a_signed_url_a_cancelled_jobs_result_does_not_show_it(client: Client) -> None:
    cancelled = client.submit(CaptionJob(image=f"{IMAGE}?X-Amz-Signature=secret")).cancel()

    assert cancelled.image_ref == IMAGE


def test_a_submission_tells_flower(client: Client, broker: redis.Redis) -> None:
    with broker.pubsub() as events:
        events.psubscribe("*celeryev*task.sent*")
        client.submit(job())
        heard = [events.get_message(timeout=5) for _ in range(2)]

    assert [message["type"] for message in heard if message] == ["psubscribe", "pmessage"]


def test_a_job_that_is_too_large_is_refused_before_any_is_sent(
    client: Client, broker: redis.Redis
) -> None:
    texts = tuple("a" * 2_000 for _ in range(MAX_MESSAGE_BYTES // 2_000 + 1))

    with pytest.raises(JobFailed, match="at most 65536") as failure:
        client.submit_many([job(), MatchJob(image=IMAGE, texts=texts)])

    assert failure.value.code is ErrorCode.JOB_INVALID
    assert broker.dbsize() == 0


def test_waiting_returns_the_result(client: Client, redis_server: RedisServer) -> None:
    with StandInWorker(redis_server.url):
        result = client.submit(job()).result(timeout_s=10)

    assert result.raise_for_state().captions is not None


def test_waiting_returns_a_failure_too(client: Client, redis_server: RedisServer) -> None:
    def fail(job: Job) -> JobResult:
        return succeeded(job).model_copy(update={"state": JobState.DEAD, "captions": None})

    with StandInWorker(redis_server.url, fail):
        result = client.submit(job()).result(timeout_s=10)

    assert result.state is JobState.DEAD
    with pytest.raises(JobFailed):
        result.raise_for_state()


def test_waiting_too_long_is_a_time_out(client: Client) -> None:
    with pytest.raises(TimeoutError, match="1 job has not ended"):
        client.submit(job()).result(timeout_s=0.1)


def test_results_come_as_they_are_completed(client: Client, redis_server: RedisServer) -> None:
    handles = client.submit_many([job("a"), job("b")])
    other = client.submit(job("c"))

    with StandInWorker(redis_server.url):
        done = {result.job_id for result in client.as_completed([*handles, other.job_id], 10)}

    assert done == {"a", "b", "c"}


def test_an_unknown_job_is_told_from_a_queued_one(client: Client) -> None:
    assert client.status("never") is None
    for call in (client.result, client.cancel):
        with pytest.raises(UnknownJob, match="never"):
            call("never")


def test_a_queued_job_can_be_cancelled(client: Client) -> None:
    handle = client.submit(job("mine"))

    cancelled = handle.cancel()

    assert cancelled.state is JobState.CANCELLED
    assert cancelled.error is not None
    assert cancelled.error.code is ErrorCode.JOB_CANCELLED
    assert (cancelled.attempts, cancelled.image_ref) == (0, IMAGE)
    assert handle.result(timeout_s=0) == cancelled


def test_a_cancelled_job_wakes_those_who_wait(client: Client) -> None:
    handle = client.submit(job())
    cancelling = threading.Timer(0.1, handle.cancel)
    cancelling.start()

    assert handle.result(timeout_s=10).state is JobState.CANCELLED
    cancelling.join()


def test_a_job_that_has_ended_is_not_cancelled(client: Client, redis_server: RedisServer) -> None:
    with StandInWorker(redis_server.url):
        ended = client.submit(job("mine")).result(timeout_s=10)

    assert client.cancel("mine") == ended
    record = client.status("mine")
    assert record is not None
    assert record.state is JobState.SUCCEEDED


def test_without_a_broker_submitting_fails_in_bounded_time() -> None:
    with Client(NOWHERE, settings=HURRIED) as client:
        assert seconds(lambda: client.submit(job()), BrokerUnavailable) < 3
        assert seconds(lambda: client.status("mine"), BrokerUnavailable) < 3


def test_a_job_that_could_not_be_sent_is_forgotten(redis_server: RedisServer) -> None:
    with Client(NOWHERE, redis_server.url, settings=HURRIED) as client:
        assert seconds(lambda: client.submit(job("mine")), BrokerUnavailable) < 3
        assert client.status("mine") is None


def test_the_error_names_what_was_sent_before(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"job-{n}" for n in range(BATCH + 1)]
    publish = Publisher.publish

    def fail_at_second(self: Publisher, jobs: list[Job], deadline_s: float) -> None:
        if len(jobs) < BATCH:
            raise BrokerUnavailable("gone")
        publish(self, jobs, deadline_s)

    monkeypatch.setattr(Publisher, "publish", fail_at_second)
    with Client(redis_server.url) as client:
        with pytest.raises(BrokerUnavailable) as failure:
            client.submit_many(job(job_id) for job_id in ids)

        assert failure.value.submitted == tuple(ids[:BATCH])
        assert client.status(ids[0]) is not None
        assert client.status(ids[-1]) is None


def test_a_broker_that_does_not_answer_is_given_up_in_bounded_time() -> None:
    with RedisServer() as server, Client(server.url, settings=HURRIED) as client:
        client.submit(job())
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert seconds(lambda: client.submit(job()), BrokerUnavailable) < 3
        finally:
            os.kill(server.pid, signal.SIGCONT)

        client.submit(job())


def test_a_short_outage_costs_no_error() -> None:
    with RedisServer() as server, Client(server.url) as client:
        client.submit(job("before"))
        server.kill()
        starting = threading.Timer(0.5, server.start)
        starting.start()

        client.submit(job("after"))
        starting.join()

        with redis.Redis.from_url(server.url) as broker:
            sent = messages(broker, "captionq.caption")
    assert [m["headers"]["id"] for m in sent] == ["before", "after"]


def test_a_full_redis_is_told_at_once_and_leaves_no_trace(
    client: Client, broker: redis.Redis
) -> None:
    client.submit(job("before"))
    broker.config_set("maxmemory", 1)
    try:
        assert seconds(lambda: client.submit(job("mine")), BrokerFull) < 3
        assert client.status("mine") is None
    finally:
        broker.config_set("maxmemory", 0)
    client.submit(job("mine"))

    sent = [m["headers"]["id"] for m in messages(broker, "captionq.caption")]
    assert sent == ["before", "mine"]


@pytest.mark.parametrize("sent_before", [False, True])
def test_a_full_broker_beside_a_results_store_is_told_at_once(
    redis_server: RedisServer, sent_before: bool
) -> None:
    with RedisServer() as full, Client(full.url, redis_server.url) as client:
        if sent_before:
            client.submit(job("before"))
        with redis.Redis.from_url(full.url) as broker:
            broker.config_set("maxmemory", 1)

        assert seconds(lambda: client.submit(job("mine")), BrokerFull) < 3
        assert client.status("mine") is None


def test_without_any_setting_the_embedded_server_serves(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPTIONQ_BROKER_URL", raising=False)
    monkeypatch.setenv("CAPTIONQ_HOME", str(tmp_path))
    try:
        with Client() as client, Client() as other:
            handle = client.submit(job())

            assert other.status(handle.job_id) == handle.status()
    finally:
        stop(tmp_path)


def test_a_broker_other_than_redis_needs_a_results_store() -> None:
    with pytest.raises(ValueError, match="CAPTIONQ_RESULTS_URL"):
        Client("amqp://127.0.0.1:1//")


async def test_the_async_client_offers_every_call(
    redis_server: RedisServer, broker: redis.Redis
) -> None:
    async with AsyncClient(redis_server.url) as client:
        handle = await client.submit(job("mine"))
        again, other = await client.submit_many([job("mine"), job("other")])
        assert handle == again
        assert [m["headers"]["id"] for m in messages(broker, "captionq.caption")] == [
            "mine",
            "other",
        ]
        status = await handle.status()
        assert status is not None
        assert status.state is JobState.QUEUED
        assert (await other.cancel()).state is JobState.CANCELLED
        assert (await other.cancel()) == await other.result()
        assert await client.status("never") is None
        with pytest.raises(UnknownJob):
            await client.result("never")

        with StandInWorker(redis_server.url):
            done = {result.job_id async for result in client.as_completed([handle, "other"], 10)}
            assert done == {"mine", "other"}
            third = await client.submit(job())
            assert (await third.result(timeout_s=10)).raise_for_state()


async def test_the_async_client_fails_in_bounded_time_too(redis_server: RedisServer) -> None:
    async with AsyncClient(NOWHERE, settings=HURRIED) as client:
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(client.submit(job()), 3)
    async with AsyncClient(NOWHERE, redis_server.url, settings=HURRIED) as client:
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(client.submit(job("mine")), 3)
        assert await client.status("mine") is None


async def test_the_async_client_never_holds_up_the_loop() -> None:
    """The broker stands still for a second; the loop goes on meanwhile."""
    with RedisServer() as server:
        async with AsyncClient(server.url) as client:
            await client.submit(job())
            longest_s = 0.0

            async def tick() -> None:
                nonlocal longest_s
                while True:
                    began_s = time.monotonic()
                    await asyncio.sleep(0.01)
                    longest_s = max(longest_s, time.monotonic() - began_s)

            ticking = asyncio.create_task(tick())
            os.kill(server.pid, signal.SIGSTOP)
            threading.Timer(1, os.kill, (server.pid, signal.SIGCONT)).start()
            await asyncio.gather(*(client.submit(job()) for _ in range(8)), client.status("mine"))
            ticking.cancel()

    assert longest_s < 0.5


@pytest.mark.parametrize(
    ("left_s", "attempt_s", "tries"),
    [
        pytest.param(-1, 0, 0, id="the time is over"),
        pytest.param(1, 2, 0, id="too little for one more"),
        pytest.param(1_000, 0, 50, id="plenty"),
    ],
)
def test_pauses_end_with_the_time_and_stay_short(
    left_s: float, attempt_s: float, tries: int
) -> None:
    further = pauses(time.monotonic() + left_s, attempt_s)

    taken = [pause_s for pause_s, _ in zip(further, range(tries + 1), strict=False)][:tries]

    assert len(taken) == tries
    assert all(0 < pause_s <= 1 for pause_s in taken)


def test_a_prepared_job_keeps_its_id_and_gets_one_when_it_has_none() -> None:
    assert prepared(job("mine")).job_id == "mine"
    assert prepared(job()).job_id != prepared(job()).job_id


KNOWN = Record(
    job_id="mine",
    task="caption",
    state=JobState.QUEUED,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def test_ids_that_could_not_be_sent_are_remembered_the_latest_of_them() -> None:
    unsent = Unsent()
    unsent.add(job(str(n)) for n in range(MAX_UNSENT + 10))
    assert "9" not in unsent
    assert "10" in unsent
    unsent.discard([job("10"), job("never")])
    assert "10" not in unsent
    assert [one.job_id for one in to_send([job("mine")], [KNOWN], ["mine"])] == ["mine"]
    running = KNOWN.model_copy(update={"state": JobState.RUNNING})
    assert to_send([job("mine")], [running], ["mine"]) == []


@pytest.mark.parametrize(
    ("ids", "known", "sent"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param(["a", "b"], [None, None], ["a", "b"], id="new"),
        pytest.param(["a", "mine", "b"], [None, KNOWN, None], ["a", "b"], id="one known"),
        pytest.param(["a", "a"], [None, KNOWN], ["a"], id="one named twice"),
        pytest.param(["a", "a"], [None, None], ["a"], id="one named twice in one round trip"),
    ],
)
def test_given_what_is_known_of_an_id_its_message_is_sent_or_not(
    ids: list[str], known: list[Record | None], sent: list[str]
) -> None:
    assert [one.job_id for one in to_send([job(name) for name in ids], known)] == sent


def test_a_plain_celery_clients_job_can_be_cancelled_without_knowing_its_image() -> None:
    record = Record(
        job_id="a", task="caption", state=JobState.RUNNING, created_at=datetime.now(UTC), attempt=2
    )

    assert (cancellation(record).image_ref, cancellation(record).attempts) == (None, 2)


def test_the_time_out_counts() -> None:
    assert "3 jobs have" in str(still_missing(3, 5))
