"""Requests that are too long, too slow, too deep or not what they say: the documented answers."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from producer.embedded import RedisServer
from producer.gateway.protocol import MAX_HEAD_BYTES
from tests.gateway_process import JOB, GatewayProcess

HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MOST = 65_536


@pytest.fixture(scope="module")
def gateway(
    _redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    log = tmp_path_factory.mktemp("bodies") / "log"
    limits = {"CAPTIONQ_BODY_TIMEOUT_S": "1", "CAPTIONQ_HEAD_TIMEOUT_S": "1"}
    limits["CAPTIONQ_SEND_TIMEOUT_S"] = "1"
    with GatewayProcess(_redis_server.url, log, CAPTIONQ_MAX_BATCH_JOBS="100", **limits) as process:
        yield process


@pytest.fixture
def wire(gateway: GatewayProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        yield connection


def answer(wire: socket.socket) -> tuple[int, dict[str, Any], bool]:
    """Status, body, and whether the connection is closed then."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += wire.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    while len(body) < length:
        body += wire.recv(65_536)
    wire.settimeout(0.5)
    try:
        closed = wire.recv(1) == b""
    except ConnectionResetError:
        closed = True
    except TimeoutError:
        closed = False
    return int(head.split()[1]), json.loads(body), closed


def padded(size: int) -> bytes:
    """A valid job of so many bytes."""
    text = json.dumps(JOB).encode()
    return text + b" " * (size - len(text))


def test_a_body_as_long_as_allowed_is_taken(wire: socket.socket) -> None:
    wire.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % MOST + padded(MOST))

    assert answer(wire)[0] == 202


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(wire: socket.socket) -> None:
    wire.sendall(HEAD + b"Content-Length: 9999999999\r\n\r\n{")

    status, said, closed = answer(wire)
    assert (status, said["code"], closed) == (413, "body_too_large", True)
    assert "65536 bytes" in said["detail"]


def test_a_body_that_does_not_say_so_is_counted_as_it_comes(wire: socket.socket) -> None:
    chunk = b"1000\r\n" + b" " * 4_096 + b"\r\n"
    wire.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 17)

    status, said, closed = answer(wire)
    assert (status, said["code"], closed) == (413, "body_too_large", True)


def test_whoever_sends_a_long_body_whole_reads_the_answer(gateway: GatewayProcess) -> None:
    """They write all of it before they read: a connection that is cut off loses the answer."""
    with gateway.client() as client:
        for size in (MOST + 1, 1_000_000):
            refused = client.post(
                "/v1/jobs", content=padded(size), headers={"Content-Type": "application/json"}
            )
            assert refused.status_code == 413


def test_a_body_that_comes_too_slowly_is_given_up(wire: socket.socket) -> None:
    began_s = time.monotonic()
    wire.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")

    status, said, closed = answer(wire)
    assert (status, said["code"], closed) == (408, "body_timeout", True)
    assert 1 <= time.monotonic() - began_s < 5


def test_a_head_that_comes_too_slowly_is_given_up(wire: socket.socket) -> None:
    wire.sendall(HEAD)

    status, said, closed = answer(wire)
    assert (status, said["code"], closed) == (408, "body_timeout", True)
    assert "head" in said["detail"]


def test_a_head_that_drips_is_given_up_all_the_same(wire: socket.socket) -> None:
    began_s = time.monotonic()
    wire.settimeout(0.05)
    received = b""
    for byte in HEAD * 2:
        wire.sendall(bytes([byte]))
        with contextlib.suppress(TimeoutError):
            received = wire.recv(4_096)
        if received:
            break

    assert b"408" in received
    assert time.monotonic() - began_s < 5


def test_a_connection_that_sends_nothing_more_is_closed(wire: socket.socket) -> None:
    wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer(wire)[0] == 200

    wire.sendall(b"\r\n")
    wire.settimeout(5)

    assert b"408" in wire.recv(4_096)


def test_a_head_that_is_too_long_is_refused(wire: socket.socket) -> None:
    wire.sendall(HEAD + b"X-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n")

    status, said, closed = answer(wire)
    assert (status, said["code"], closed) == (431, "head_too_large", True)


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /healthz HTTP/1.1\r\nX-Long: ",
        b"GET /healthz HTTP/1.1\r\nX-",
        b"GET /v1/jobs/" + b"a" * MAX_HEAD_BYTES,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ",
    ],
    ids=["value", "name", "path", "chunk's extension", "trailer"],
)
def test_what_never_ends_is_not_gathered(
    gateway: GatewayProcess, wire: socket.socket, begun: bytes
) -> None:
    wire.sendall(begun)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 100_000_000:
            sent += wire.send(b"x" * 65_536)

    assert sent < 20_000_000
    with gateway.client() as client:
        assert client.get("/healthz").status_code == 200


def test_whoever_takes_none_of_their_answers_is_cut_off(wire: socket.socket) -> None:
    asked = 200
    wire.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * asked)
    time.sleep(4)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while some := wire.recv(1_000_000):
            received += some

    assert 0 < received.count(b"HTTP/1.1 200") < asked


@pytest.mark.parametrize("nonsense", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_what_is_no_http_is_told_so(wire: socket.socket, nonsense: bytes) -> None:
    wire.sendall(nonsense)

    status, said, closed = answer(wire)
    assert (status, said["code"], closed) == (400, "http_error", True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_a_body_of_another_kind_is_refused(
    gateway: GatewayProcess, headers: dict[str, str]
) -> None:
    with gateway.client() as client:
        refused = client.post("/v1/jobs", content=json.dumps(JOB).encode(), headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (415, "media_type_unsupported")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_a_content_type_may_be_spelled_as_http_lets_it(gateway: GatewayProcess, kind: str) -> None:
    with gateway.client() as client:
        taken = client.post(
            "/v1/jobs", content=json.dumps(JOB).encode(), headers={"Content-Type": kind}
        )

    assert taken.status_code == 202


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_body_that_is_nested_deeply_is_refused_unread(
    gateway: GatewayProcess, opening: str
) -> None:
    with gateway.client() as client:
        refused = client.post(
            "/v1/jobs",
            content=(opening * 10_000).encode(),
            headers={"Content-Type": "application/json"},
        )

    assert (refused.status_code, refused.json()["code"]) == (400, "body_invalid")
    assert "deeper than 16" in refused.json()["detail"]


def test_a_batch_of_too_many_jobs_is_refused(gateway: GatewayProcess) -> None:
    with gateway.client() as client:
        refused = client.post("/v1/jobs:batch", json={"jobs": [JOB] * 101})

    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


def test_given_no_redis_submissions_are_refused_in_time_and_told_to_come_again(
    tmp_path: Path,
) -> None:
    nowhere = "redis://127.0.0.1:1/0"
    with (
        GatewayProcess(nowhere, tmp_path / "log", CAPTIONQ_SUBMIT_TIMEOUT_S="1") as process,
        process.client() as client,
    ):
        refused = client.post("/v1/jobs", json=JOB)
        ready = client.get("/readyz")
        alive = client.get("/healthz")

    assert (refused.status_code, refused.json()["code"]) == (503, "broker_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert "127.0.0.1" not in refused.text
    assert (ready.status_code, ready.json()["detail"]) == (
        503,
        "The results store does not answer.",
    )
    assert alive.status_code == 200


def test_given_a_redis_that_is_full_submissions_are_told_so(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis", maxmemory="500kb") as server,
        GatewayProcess(server.url, tmp_path / "log") as process,
        process.client() as client,
    ):
        refused = client.post("/v1/jobs", json=JOB)

    assert (refused.status_code, refused.json()["code"]) == (503, "broker_full")


def test_given_origins_their_pages_may_call_and_no_others(tmp_path: Path) -> None:
    app = "https://app.example.com"
    nowhere = "redis://127.0.0.1:1/0"
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "prefer"}
    with GatewayProcess(nowhere, tmp_path / "log", CAPTIONQ_ALLOWED_ORIGINS=app) as process:
        theirs = httpx.options(f"{process.url}/v1/jobs", headers={"Origin": app} | asks)
        evil = httpx.options(
            f"{process.url}/v1/jobs", headers={"Origin": "https://evil.example"} | asks
        )

    assert theirs.headers["access-control-allow-origin"] == app
    assert "access-control-allow-origin" not in evil.headers
