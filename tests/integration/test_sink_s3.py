"""Shards to S3: a real server, and ones that are away, refuse, stumble or drip."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from producer.contract import ErrorCode
from tests.servers import Reply, ScriptedHttp
from tests.unit.test_sink import ITEMS
from worker.embedded_s3 import S3Server
from worker.errors import Fault
from worker.shard import encoded
from worker.sink import Sinks
from worker.sink_s3 import S3Sink


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "5ecret")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path]]:
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    with S3Server(root, "access", "5ecret") as server:
        yield server, root


def write(
    endpoint_url: str, sink: str = "s3://bucket/shards/", job_id: str = "a", timeout_s: float = 5
) -> str:
    sinks = Sinks(["s3://bucket/shards/"], timeout_s, S3Sink(timeout_s, endpoint_url))
    with closing(sinks):
        return sinks.write(sink, "jsonl", job_id, ITEMS)


def test_given_a_real_server_then_the_shard_is_one_object_however_often_it_is_written(
    s3: tuple[S3Server, Path],
) -> None:
    server, root = s3
    for _ in range(2):
        uri = write(server.endpoint_url, "s3://bucket/shards/run%201/", "a/b")
    (shard,) = (root / "bucket/shards/run 1").iterdir()
    assert uri == f"s3://bucket/shards/run%201/{shard.name}"
    assert shard.read_bytes() == encoded(ITEMS, "jsonl")


def test_given_a_shard_then_it_is_one_put_with_all_its_bytes_and_its_media_type() -> None:
    with ScriptedHttp({"/bucket/shards/a.jsonl": [Reply(200)]}) as web:
        write(web.url(""))
    (seen,) = web.requests
    assert (seen.method, seen.body) == ("PUT", encoded(ITEMS, "jsonl"))
    assert seen.headers["content-type"] == "application/x-ndjson"
    assert "expect" not in seen.headers


@pytest.mark.parametrize(
    ("suffix", "media_type"),
    [
        ("npz", "application/zip"),
        ("caption-2.npz", "application/zip"),
        ("word-01.png", "image/png"),
        ("html", "text/html; charset=utf-8"),
        ("what", "application/octet-stream"),
    ],
)
def test_given_a_file_of_an_explanation_then_it_is_written_with_its_media_type(
    suffix: str, media_type: str
) -> None:
    with ScriptedHttp({f"/bucket/shards/a.{suffix}": [Reply(200)]}) as web:
        sinks = Sinks(["s3://bucket/shards/"], 5, S3Sink(5, web.url("")))
        with closing(sinks):
            uri = sinks.put("s3://bucket/shards/", "a", suffix, b"bytes")
    (seen,) = web.requests
    assert uri == f"s3://bucket/shards/a.{suffix}"
    assert (seen.body, seen.headers["content-type"]) == (b"bytes", media_type)


def test_given_a_server_that_stumbles_once_then_the_whole_body_is_sent_again() -> None:
    with ScriptedHttp({"/bucket/shards/a.jsonl": [Reply(503), Reply(200)]}) as web:
        write(web.url(""))
    assert [seen.body for seen in web.requests] == [encoded(ITEMS, "jsonl")] * 2


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(503), id="busy"),
        pytest.param(Reply(500, b"5ecret"), id="broken"),
        pytest.param(Reply(403, b"<Error><Code>AccessDenied 5ecret</Code></Error>"), id="denied"),
        pytest.param(Reply(404, b"<Error><Code>NoSuchBucket</Code></Error>"), id="no bucket"),
        pytest.param(Reply(hang_up=True), id="hangs up"),
        pytest.param(Reply(200, b"", headers={"X": "a" * 300_000}), id="endless head"),
    ],
)
def test_given_a_server_that_does_not_take_it_then_it_is_tried_later_and_no_secret_is_told(
    reply: Reply,
) -> None:
    with ScriptedHttp({"/bucket/shards/a.jsonl": [reply]}) as web, pytest.raises(Fault) as fault:
        write(web.url(""))
    assert fault.value.code is ErrorCode.SINK_UNAVAILABLE
    assert fault.value.transient
    assert "5ecret/" not in str(fault.value)
    assert "AccessDenied 5ecret" not in str(fault.value)


@pytest.mark.parametrize(
    "reply", [Reply(200, delay_s=30), Reply(200, b"", headers={"X": "a" * 999}, drip_s=0.3)]
)
def test_given_a_server_that_is_slow_then_it_is_waited_for_no_longer_than_the_timeout(
    reply: Reply,
) -> None:
    began_s = time.monotonic()
    with ScriptedHttp({"/bucket/shards/a.jsonl": [reply]}) as web:
        with pytest.raises(Fault) as fault:
            write(web.url(""), timeout_s=1)
        assert time.monotonic() - began_s < 3
    assert fault.value.code is ErrorCode.SINK_UNAVAILABLE


def test_given_no_server_then_it_is_tried_later() -> None:
    with pytest.raises(Fault) as fault:
        write("http://127.0.0.1:1")
    assert fault.value.code is ErrorCode.SINK_UNAVAILABLE
