"""Jobs followed by server-sent events: what comes, when it ends, what survives."""

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from producer.contract import CaptionJob
from producer.embedded import RedisServer
from producer.redis_store import RedisStore
from tests.event_stream import following
from tests.gateway_process import IMAGE, JOB, GatewayProcess
from tests.stand_in_worker import succeeded


@pytest.fixture(scope="module")
def gateway(
    _redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    log = tmp_path_factory.mktemp("events") / "log"
    with GatewayProcess(
        _redis_server.url, log, CAPTIONQ_KEEP_ALIVE_S="0.5", CAPTIONQ_MAX_STREAMS="5"
    ) as process:
        yield process


@pytest.fixture
def client(redis_server: RedisServer, gateway: GatewayProcess) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url)
    yield store
    store.close()


def submitted(client: httpx.Client, job_id: str = "mine") -> str:
    return client.post("/v1/jobs", json=JOB | {"job_id": job_id}).headers["location"]


def end(store: RedisStore, job_id: str = "mine") -> None:
    store.finish(succeeded(CaptionJob(job_id=job_id, image=IMAGE)))


def test_a_job_is_followed_from_the_queue_to_its_result_and_the_stream_ends(
    client: httpx.Client, store: RedisStore
) -> None:
    where = submitted(client)

    with following(client, where) as events:
        queued = next(events)
        store.start("mine", "caption", 1, "worker@host")
        running = next(one for one in events if one.name)
        end(store)
        result = next(one for one in events if one.name)
        rest = [one for one in events if one.name]

    assert [queued.name, running.name, result.name] == ["queued", "running", "result"]
    assert [queued.id, running.id, result.id] == ["queued", "running-1", "result"]
    assert running.data["state"] == "running"
    assert result.data["result"]["captions"][0]["text"] == f"a picture of {IMAGE}"
    assert "worker@host" not in str(running.data)
    assert rest == []


def test_a_job_that_goes_back_and_is_tried_again_is_told_of(
    client: httpx.Client, store: RedisStore
) -> None:
    with following(client, submitted(client)) as events:
        next(events)
        store.start("mine", "caption", 1, "worker@host")
        assert next(one for one in events if one.name).id == "running-1"
        store.return_delivery("mine", 1)
        assert next(one for one in events if one.name).name == "queued"
        store.start("mine", "caption", 2, "worker@host")
        assert next(one for one in events if one.name).id == "running-2"


def test_a_job_that_has_ended_is_told_at_once(client: httpx.Client, store: RedisStore) -> None:
    where = submitted(client)
    end(store)

    with following(client, where) as events:
        assert [one.name for one in events] == ["result"]


def test_who_has_had_the_result_is_told_not_to_connect_again(
    client: httpx.Client, store: RedisStore
) -> None:
    where = submitted(client)
    end(store)

    assert client.get(f"{where}/events", headers={"Last-Event-ID": "result"}).status_code == 204


def test_who_connects_again_before_the_end_hears_the_rest(
    client: httpx.Client, store: RedisStore
) -> None:
    where = submitted(client)

    with following(client, where, **{"Last-Event-ID": "running-1"}) as events:
        assert next(events).name == "queued"
        end(store)
        assert [one.name for one in events if one.name] == ["result"]


def test_a_silent_stream_says_that_it_lives(client: httpx.Client) -> None:
    with following(client, submitted(client)) as events:
        next(events)
        assert next(events).name == ""


def test_many_may_follow_the_same_job(client: httpx.Client, store: RedisStore) -> None:
    where = submitted(client)
    with (
        following(client, where) as first,
        following(client, where) as second,
        following(client, where) as third,
    ):
        assert [next(one).name for one in (first, second, third)] == ["queued"] * 3
        end(store)
        for events in (first, second, third):
            assert [one.name for one in events if one.name] == ["result"]


def test_more_streams_than_allowed_are_refused_and_those_that_end_make_room(
    client: httpx.Client,
) -> None:
    where = submitted(client)
    with ExitStack() as opened:
        streams = [opened.enter_context(following(client, where)) for _ in range(5)]
        assert [next(stream).name for stream in streams] == ["queued"] * 5
        refused = client.get(f"{where}/events")

    assert (refused.status_code, refused.json()["code"]) == (503, "streams_exhausted")
    deadline_s = time.monotonic() + 10
    while "captionq_gateway_streams 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    with following(client, where) as events:
        assert next(events).name == "queued"


def test_no_more_streams_are_opened_than_allowed_however_many_ask_at_once(
    client: httpx.Client, gateway: GatewayProcess
) -> None:
    asked = f"GET {submitted(client)}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with ExitStack() as opened:
        wires = [
            opened.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 10))
            for _ in range(50)
        ]
        for wire in wires:
            wire.sendall(asked)
        answers = [wire.recv(12) for wire in wires]

    assert answers.count(b"HTTP/1.1 200") == 5
    assert answers.count(b"HTTP/1.1 503") == 45


def test_a_job_is_followed_over_the_end_of_its_redis(tmp_path: Path) -> None:
    """The subscription is lost with Redis; what ended meanwhile is heard all the same."""
    with (
        RedisServer(tmp_path / "redis") as server,
        GatewayProcess(server.url, tmp_path / "log", CAPTIONQ_KEEP_ALIVE_S="60") as process,
        process.client() as client,
    ):
        before, after = submitted(client, "before"), submitted(client, "after")
        with following(client, before) as first, following(client, after) as second:
            assert [next(first).name, next(second).name] == ["queued", "queued"]
            server.kill()
            server.start()
            store = RedisStore(server.url)
            end(store, "before")  # perhaps while nobody listens
            assert [one.name for one in first if one.name] == ["result"]
            end(store, "after")
            assert [one.name for one in second if one.name] == ["result"]
            store.close()
        assert process.log.read_text().count("The subscription is lost") == 1


def test_a_gateway_that_ends_tells_its_streams_and_answers_who_waits(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis") as server,
        ThreadPoolExecutor(1) as aside,
    ):
        process = GatewayProcess(server.url, tmp_path / "log")
        with process.client() as client, following(client, submitted(client)) as events:
            assert next(events).name == "queued"
            waiting = aside.submit(
                httpx.post, f"{process.url}/v1/jobs", json=JOB, headers={"Prefer": "wait=30"}
            )
            while len(client.get("/v1/jobs").json()["jobs"]) < 2:
                time.sleep(0.05)
            process.process.send_signal(signal.SIGTERM)
            assert [one.name for one in events] == ["leaving"]
            assert waiting.result(10).status_code == 202
        assert process.stop() == 0
        assert "Traceback" not in process.log.read_text()


def test_a_stream_of_no_job_is_a_problem(client: httpx.Client) -> None:
    refused = client.get("/v1/jobs/nowhere/events")

    assert (refused.status_code, refused.json()["code"]) == (404, "job_unknown")
