"""The stream of results, read alone and by consumer groups; `captionq tail`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from producer import cli
from producer.contract import CaptionJob, JobState
from producer.embedded import RedisServer
from producer.redis_store import RedisStore
from producer.result_stream import BATCH, START, ResultStream
from tests.stores import ended


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(redis_server.url, result_stream=1_000)) as opened:
        yield opened


def finish(store: RedisStore, *job_ids: str) -> None:
    for job_id in job_ids:
        store.create(CaptionJob(job_id=job_id, image="https://example.com/cat.jpg", owner="web"))
        store.finish(ended(job_id))


@contextmanager
def stream(server: RedisServer, **options: Any) -> Iterator[ResultStream]:
    with closing(ResultStream(server.url, **options)) as opened:
        yield opened


def jobs(found: list[Any]) -> list[str]:
    return [one.job_id for one in found]


def test_given_one_reader_then_it_begins_where_it_likes_and_misses_nothing(
    redis_server: RedisServer, store: RedisStore
) -> None:
    finish(store, "a", "b")
    with stream(redis_server, begin=START) as everything, stream(redis_server) as new:
        assert new.read(0.01) == []
        (a, b) = everything.read(0.01)
        assert (a.job_id, a.task, a.state, a.owner) == ("a", "caption", "succeeded", "web")
        assert json.loads(a.result) == ended("a").model_dump(mode="json")
        finish(store, "c")
        assert jobs(new.read()) == jobs(everything.read()) == ["c"]
    with stream(redis_server, begin=b.entry) as later:
        assert jobs(later.read()) == ["c"]


def test_given_a_group_then_each_result_is_for_one_consumer(
    redis_server: RedisServer, store: RedisStore
) -> None:
    finish(store, *map(str, range(BATCH + 50)))
    seen: list[str] = []
    with (
        stream(redis_server, begin=START, group="g", consumer="one") as one,
        stream(redis_server, begin=START, group="g", consumer="two") as two,
    ):
        for _ in range(2):
            for each in (one, two):
                found = each.read(0.01)
                seen += jobs(found)
                each.acknowledge(found)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.xpending("captionq:results", "g")["pending"] == 0
    assert sorted(seen, key=int) == [str(n) for n in range(BATCH + 50)]


def test_given_a_consumer_that_died_then_its_results_come_to_it_again_or_to_another_later(
    redis_server: RedisServer, store: RedisStore
) -> None:
    finish(store, "a", "b")
    options: dict[str, Any] = {"begin": START, "group": "g", "claim_after_s": 0.3}
    with stream(redis_server, consumer="one", **options) as died:
        assert jobs(died.read()) == ["a", "b"]
    with stream(redis_server, consumer="one", **options) as again:
        found = again.read()
        assert jobs(found) == ["a", "b"]
        again.acknowledge(found[:1])
    with stream(redis_server, consumer="two", **options) as other:
        assert other.read(0.01) == []
        time.sleep(0.5)
        claimed = other.read(0.01)
        assert jobs(claimed) == ["b"]
        other.acknowledge(claimed)
        time.sleep(0.5)
        assert other.read(0.01) == []


def test_given_results_that_were_trimmed_before_they_were_read_then_reading_goes_on(
    redis_server: RedisServer, store: RedisStore
) -> None:
    finish(store, *map(str, range(3 * BATCH)))
    options: dict[str, Any] = {"begin": START, "group": "g", "claim_after_s": 0.1}
    with stream(redis_server, consumer="one", **options) as died:
        for _ in range(3):
            assert len(died.read()) == BATCH
    with redis.Redis.from_url(redis_server.url) as client:
        client.xtrim("captionq:results", maxlen=1, approximate=False)
    time.sleep(0.2)
    found: list[str] = []
    with stream(redis_server, consumer="two", **options) as other:
        for _ in range(5):
            found = found or jobs(other.read(0.01))  # it would claim again what it leaves alone
    assert found == [str(3 * BATCH - 1)]
    with stream(redis_server, consumer="two", **options) as again:
        again.acknowledge(again.read(0.01))
        again.read(0.01)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.xpending("captionq:results", "g")["pending"] == 0


def test_given_a_result_with_fields_of_a_later_version_then_they_are_left_out(
    redis_server: RedisServer, store: RedisStore
) -> None:
    finish(store, "a")
    with redis.Redis.from_url(redis_server.url) as client:
        client.xadd("captionq:results", {"job_id": "b", "result": "{}", "later": "1"})
    with stream(redis_server, begin=START) as one:
        assert jobs(one.read()) == ["a", "b"]


def test_given_a_stream_that_expired_then_its_group_reads_what_comes_after(
    redis_server: RedisServer, store: RedisStore
) -> None:
    with stream(redis_server, group="g") as one:
        assert one.read(0.01) == []
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.ttl("captionq:results") > 0
            client.delete("captionq:results")
        finish(store, "a")
        assert jobs(one.read()) == ["a"]


def test_given_the_command_then_it_prints_a_document_a_line_and_resumes_from_any(
    redis_server: RedisServer, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", redis_server.url)
    finish(store, "a", "b", "c")

    def captionq(*words: str) -> Result:
        return CliRunner().invoke(cli.app, ["tail", *words])

    first = captionq("--from", "start", "-n", "2")
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [one["job_id"] for one in lines] == ["a", "b"]
    assert lines[0]["result"]["state"] == JobState.SUCCEEDED
    rest = captionq("--from", lines[1]["entry"], "-n", "1")
    assert json.loads(rest.stdout)["job_id"] == "c"
    grouped = [captionq("--from", "start", "--group", "g", "-n", "1").stdout for _ in range(3)]
    assert [json.loads(one)["job_id"] for one in grouped] == ["a", "b", "c"]
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.xpending("captionq:results", "g")["pending"] == 0
    assert captionq("--consumer", "me").exit_code == 2
    assert "'entry' of a line" in captionq("--from", "yesterday").output


def test_given_a_file_whose_last_line_was_cut_off_then_what_is_appended_begins_a_line(
    redis_server: RedisServer, store: RedisStore, tmp_path: Path
) -> None:
    finish(store, "a", "b", "c")
    path = tmp_path / "results.jsonl"
    command = "-m producer.cli tail --from start --group g -n 1"
    for begun in ('{"entry": "1-', ""):
        with path.open("a") as out:
            out.write(begun)
        with path.open("a") as out:
            subprocess.run(
                [sys.executable, *command.split()],
                env={**os.environ, "CAPTIONQ_BROKER_URL": redis_server.url},
                stdout=out,
                check=True,
            )
    cut, *lines = path.read_text().splitlines()
    assert cut == '{"entry": "1-'
    assert [json.loads(line)["job_id"] for line in lines] == ["a", "b"]


@contextmanager
def tailing(server: RedisServer, *words: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "tail", *words],
        env={**os.environ, "CAPTIONQ_BROKER_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return str(json.loads(process.stdout.readline())["job_id"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_given_ctrl_c_then_tail_ends_without_a_word(
    redis_server: RedisServer, store: RedisStore, number: int
) -> None:
    finish(store, "a")
    with tailing(redis_server, "--from", "start", "--group", "g") as process:
        assert said(process) == "a"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (0, "", "")


def test_given_a_redis_that_restarts_then_tail_goes_on_and_says_so_once() -> None:
    with RedisServer() as server, closing(RedisStore(server.url, result_stream=100)) as store:
        finish(store, "a")
        with tailing(server, "--from", "start", "--group", "g", "-n", "2") as process:
            assert said(process) == "a"
            server.kill()
            time.sleep(1.5)
            server.start()
            finish(store, "b")
            out, err = process.communicate(timeout=20)

    assert json.loads(out)["job_id"] == "b"
    assert err.count("waiting for it") == 1
    assert process.returncode == 0
