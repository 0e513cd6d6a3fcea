"""HttpSource against servers that drip, flood and lie: bytes or a typed fault, in time."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.raw_server import RawServer
from tests.servers import Reply, ScriptedHttp, deadline
from worker.errors import ErrorCode, Fault
from worker.fetch.http import HttpLimits, HttpSource
from worker.fetch.netguard import parse_allow

BODY = b"image" * 200
ANYWHERE = [parse_allow("127.0.0.1/32:*")]
LIMITS = HttpLimits(total_s=1, max_bytes=20_000)
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def source() -> Iterator[HttpSource]:
    http = HttpSource(LIMITS, ANYWHERE)
    yield http
    http.close()


def outcome(source: HttpSource, url: str, within_s: float = 60) -> bytes | ErrorCode:
    try:
        return source.fetch(url, deadline(within_s))
    except Fault as fault:
        return fault.code


# Slow peers


def dripped_head(server: RawServer, peer: socket.socket) -> None:
    server.drip(peer, OK + b"X: " + b"x" * 999, 0.2)


def dripped_body(server: RawServer, peer: socket.socket) -> None:
    peer.sendall(OK + b"Content-Length: 999\r\n\r\n")
    server.drip(peer, b"x" * 999, 0.2)


def dripped_chunk_header(server: RawServer, peer: socket.socket) -> None:
    peer.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    server.drip(peer, b"5;" + b"x" * 999, 0.2)


def dripped_chunks(server: RawServer, peer: socket.socket) -> None:
    peer.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    server.drip(peer, b"1\r\nx\r\n" * 99, 0.2)


def dripped_trailer(server: RawServer, peer: socket.socket) -> None:
    peer.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    server.drip(peer, b"X: " + b"x" * 999, 0.2)


def dripped_interim(server: RawServer, peer: socket.socket) -> None:
    server.drip(peer, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 99, 0.2)


def dripped_redirect(server: RawServer, peer: socket.socket) -> None:
    server.drip(peer, b"HTTP/1.1 302 F\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 0.01)


def silence(server: RawServer, peer: socket.socket) -> None:
    server.stopping.wait()


SLOW: list[Callable[[RawServer, socket.socket], None]] = [
    dripped_head,
    dripped_body,
    dripped_chunk_header,
    dripped_chunks,
    dripped_trailer,
    dripped_interim,
    dripped_redirect,
    silence,
]


def test_given_16_peers_that_drip_when_a_healthy_host_is_fetched_from_then_it_is_not_delayed() -> (
    None
):
    """Each of the peers ends in time, the handshakes that hang as well."""
    limits = HttpLimits(connect_s=5, total_s=1, max_redirects=99)
    source = HttpSource(limits, ANYWHERE, resolve=lambda host, port: ["127.0.0.1"])
    servers = []
    for number in range(16):
        server = RawServer(lambda peer: None)
        slow = SLOW[number % len(SLOW)]
        server.answer = lambda peer, server=server, slow=slow: slow(server, peer)
        servers.append(server)
    with RawServer(lambda peer: hanging.stopping.wait(), head=False) as hanging:
        urls = [server.url(host=f"{n}.example") for n, server in enumerate(servers)]
        urls += [hanging.url().replace("http:", "https:")] * 2
        times: list[float] = []

        def timed(url: str) -> bytes | ErrorCode:
            began = time.monotonic()
            try:
                return outcome(source, url)
            finally:
                times.append(time.monotonic() - began)

        with (
            ScriptedHttp({"/": [Reply(200, BODY)]}) as healthy,
            ThreadPoolExecutor(len(urls)) as threads,
        ):
            ends = [threads.submit(timed, url) for url in urls]
            time.sleep(0.2)
            slowest = 0.0
            while not any(end.done() for end in ends):
                began = time.monotonic()
                assert source.fetch(healthy.url(), deadline()) == BODY
                slowest = max(slowest, time.monotonic() - began)
            codes = {end.result() for end in ends}
        assert healthy.hits() > 20
    assert slowest < 0.5
    assert codes <= {ErrorCode.FETCH_TIMEOUT, ErrorCode.CONNECT_FAILED}
    assert len(times) == 18
    assert max(times) < 1.5
    for server in servers:
        server.stop()
    source.close()


def test_given_lookups_that_hang_when_another_name_is_asked_for_then_it_is_found() -> None:
    released = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if host.startswith("hanging"):
            released.wait(10)
        return ["127.0.0.1"]

    source = HttpSource(HttpLimits(dns_s=0.5), ANYWHERE, resolve=resolve)
    with ScriptedHttp({"/": [Reply(200, BODY)]}) as server, ThreadPoolExecutor(32) as threads:
        hang = lambda n: outcome(source, server.url(host=f"hanging{n}.example"))  # noqa: E731
        hanging = [threads.submit(hang, n) for n in range(32)]
        time.sleep(0.1)
        assert outcome(source, server.url(host="cat.example"), 5) == BODY
        assert {one.result() for one in hanging} == {ErrorCode.DNS_FAILED}
        released.set()
    source.close()


# Floods and lies


def flood(start: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Send without end, until the peer hangs up."""

    def answer(peer: socket.socket) -> None:
        peer.sendall(start)
        block = again * (65_536 // len(again) + 1)
        while True:
            peer.sendall(block)

    return answer


GZIP = b"Content-Encoding: gzip\r\n"


def zipped(data: bytes) -> bytes:
    """The same bytes each time: parameters are part of tests' names."""
    return gzip.compress(data, mtime=0)


BOMB = zipped(bytes(50_000_000))


@pytest.mark.parametrize(
    ("start", "again", "code"),
    [
        (OK + b"\r\n", b"x", ErrorCode.BODY_TOO_LARGE),
        (OK + b"Content-Length: 5\r\n\r\n", b"x", None),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", ErrorCode.BODY_TOO_LARGE),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n",
            b"1;" + b"x" * 9_000 + b"\r\nx\r\n",
            ErrorCode.BODY_TOO_LARGE,
        ),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x", ErrorCode.BODY_INCOMPLETE),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n", ErrorCode.BODY_INCOMPLETE),
        (OK + GZIP + b"\r\n" + zipped(b"x"), b"\0", ErrorCode.BODY_TOO_LARGE),
        (
            OK + GZIP + b"\r\n" + zipped(b"")[:10],
            b"\0\0\0\xff\xff",
            ErrorCode.BODY_TOO_LARGE,
        ),
        (OK + GZIP + b"\r\n" + BOMB, b"\0", ErrorCode.BODY_TOO_LARGE),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (OK, b"X: x\r\n", ErrorCode.CONNECT_FAILED),
        (OK + b"X: ", b"x", ErrorCode.CONNECT_FAILED),
        (OK + b"X: x\r\n", b" folded\r\n", ErrorCode.CONNECT_FAILED),
        (b"", b"\r\n", ErrorCode.CONNECT_FAILED),
        (b"", b"x", ErrorCode.CONNECT_FAILED),
        (b"", b"\0", ErrorCode.CONNECT_FAILED),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_given_a_flood_when_fetched_then_it_ends_long_before_the_deadline(
    start: bytes, again: bytes, code: ErrorCode | None
) -> None:
    source = HttpSource(HttpLimits(max_bytes=20_000), ANYWHERE)
    with RawServer(flood(start, again)) as server:
        began = time.monotonic()
        assert outcome(source, server.url()) == (code or b"xxxxx")
        assert time.monotonic() - began < 2
    source.close()


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (OK + b"Content-Length: 9\r\n\r\nimage", ErrorCode.BODY_INCOMPLETE),
        (OK + b"Content-Length: 3\r\n\r\nimage", b"ima"),
        (OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nimage", b"image"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nimage", ErrorCode.CONNECT_FAILED),
        (OK + b"Content-Length: 5, 6\r\n\r\nimage", ErrorCode.CONNECT_FAILED),
        (OK + b"Content-Length: -5\r\n\r\nimage", ErrorCode.CONNECT_FAILED),
        (OK + b"Content-Length: +5\r\n\r\nimage", ErrorCode.CONNECT_FAILED),
        (OK + b"Content-Length: 0x5\r\n\r\nimage", ErrorCode.CONNECT_FAILED),
        (OK + b"Content-Length: \xb2\r\n\r\nimage", ErrorCode.CONNECT_FAILED),
        (OK + b"Content-Length: 20001\r\n\r\n", ErrorCode.BODY_TOO_LARGE),
        (OK + b"Content-Length: 99999999999999999999\r\n\r\n", ErrorCode.BODY_TOO_LARGE),
        (OK + b"\r\nimage", b"image"),  # to the end of the connection
        (OK + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nimage", b"image"),  # obs-fold
        (b"HTTP/1.1 200 OK\n\nimage", b"image"),
        (b"HTTP/1.0 200 OK\r\n\r\nimage", b"image"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nimage", b"image"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nimage\r\n0\r\nX: x\r\n\r\n", b"image"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nimage0\r\n\r\n", ErrorCode.BODY_INCOMPLETE),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nimage", ErrorCode.BODY_INCOMPLETE),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nimage", ErrorCode.BODY_INCOMPLETE),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 21, ErrorCode.BODY_INCOMPLETE),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nima", ErrorCode.BODY_INCOMPLETE),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         ErrorCode.CONNECT_FAILED),
        (OK + b"X : y\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (OK + b"X\0: y\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (OK + b": y\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (OK + b" folded first\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (OK + GZIP + b"\r\n" + BOMB, ErrorCode.BODY_TOO_LARGE),
        (OK + GZIP + b"\r\n" + zipped(b"image")[:-4], ErrorCode.BODY_INCOMPLETE),
        (OK + GZIP + b"\r\n" + zipped(b"image"), b"image"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 999 ?\r\n\r\n", ErrorCode.HTTP_5XX),
        (b"HTTP/1.1 099 ?\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (b"HTTP/2 200 OK\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (b"HTTP/1.1 200OK\r\n\r\n", ErrorCode.CONNECT_FAILED),
        (b"SSH-2.0-OpenSSH_9\r\n", ErrorCode.CONNECT_FAILED),
        (b"", ErrorCode.CONNECT_FAILED),
    ],
    ids=lambda value: repr(value)[:70] if isinstance(value, bytes) else "",
)  # fmt: skip
def test_given_an_answer_bent_out_of_shape_when_fetched_then_it_is_a_body_or_one_code(
    source: HttpSource, answer: bytes, wanted: bytes | ErrorCode
) -> None:
    with RawServer(lambda peer: peer.sendall(answer)) as server:
        assert outcome(source, server.url()) == wanted


HEADERS = st.lists(
    st.builds(
        b"%b: %b\r\n".__mod__,
        st.tuples(
            st.sampled_from(
                [b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"Location",
                 b"Retry-After", b"X-Robots-Tag", b"Connection"]
            ),
            st.binary(max_size=20)
            | st.sampled_from([b"5", b"chunked", b"gzip", b"identity", b"close", b"/", b"//x/"])
            | st.text("0123456789 :,GMTSatJan-+.", max_size=30).map(str.encode),
        ),
    ),
    max_size=4,
).map(b"".join)  # fmt: skip
ANSWERS = st.binary(max_size=200) | st.builds(
    b"HTTP/1.1 %d X\r\n%b\r\n%b".__mod__,
    st.tuples(
        st.sampled_from([100, 101, 103, 199, 200, 204, 206, 301, 304, 404, 429, 503, 600]),
        HEADERS,
        st.binary(max_size=60)
        | st.sampled_from([b"5\r\nimage\r\n0\r\n\r\n", zipped(b"image"), OK * 2]),
    ),
)


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[RawServer, HttpSource]]:
    """A server whose answer is set before each fetch, and a source without patience."""
    limits = HttpLimits(total_s=1, max_bytes=1_000, max_retry_after_s=0)
    source = HttpSource(limits, ANYWHERE, resolve=lambda host, port: ["127.0.0.1"])
    with RawServer(lambda peer: None) as server:
        yield server, source
    source.close()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=ANSWERS)
@example(answer=b"HTTP/1.1 503 X\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 +2359\r\n\r\n")
@example(answer=b"HTTP/1.1 503 X\r\nRetry-After: Mon, 01 Jan 2026 00:00:00 +9999\r\n\r\n")
@example(answer=b"HTTP/1.1 503 X\r\nRetry-After: 1 1 1 1 1\r\n\r\n")
@example(answer=b"HTTP/1.1 302 X\r\nLocation: //[\r\n\r\n")
@example(answer=b"HTTP/1.1 302 X\r\nLocation: \xff\r\n\r\n")
def test_given_any_bytes_for_an_answer_when_fetched_then_it_is_bytes_or_a_fault_in_time(
    echo: tuple[RawServer, HttpSource], answer: bytes
) -> None:
    server, source = echo
    server.answer = lambda peer: peer.sendall(answer)
    began = time.monotonic()
    result: Any = outcome(source, server.url())
    assert isinstance(result, bytes | ErrorCode)
    assert time.monotonic() - began < 1.5


# What is told


def test_given_a_server_that_repeats_the_request_when_it_fails_then_its_signature_is_not_told(
    source: HttpSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answers = [
        b"%b\r\n",
        b"HTTP/1.1 200 %b\r\nContent-Length: x%b\r\n\r\n",
        OK + b"X\0: %b\r\n\r\n",
        OK + b"Transfer-Encoding: %b\r\n\r\n",
        OK + b"Content-Encoding: %b\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n%b\r\n",
        b"HTTP/1.1 302 %b\r\nLocation: //[%b\r\n\r\n",
        b"HTTP/1.1 302 %b\r\nLocation: ftp://x/?%b\r\n\r\n",
        b"HTTP/1.1 503 %b\r\nX: %b\r\n\r\n",
    ]
    for answer in answers:
        with RawServer(lambda peer: None) as server:

            def say(
                peer: socket.socket, answer: bytes = answer, server: RawServer = server
            ) -> None:
                query = server.heads[-1].split()[1].partition(b"?")[2]
                peer.sendall(answer.replace(b"%b", query))

            server.answer = say
            with pytest.raises(Fault) as caught:
                source.fetch(server.url("/a?X-Amz-Signature=planted0123456789"), deadline())
        assert b"planted" in server.heads[0]
        assert "planted" not in str(caught.value)
    assert "planted" not in caplog.text


# Manners


def test_given_a_host_that_is_busy_when_asked_again_then_it_is_left_alone_for_its_time(
    source: HttpSource,
) -> None:
    routes = {"/": [Reply(429, headers={"Retry-After": "1"}), Reply(200, BODY)]}
    with ScriptedHttp(routes) as busy, ScriptedHttp({"/": [Reply(200, BODY)]}) as other:
        assert outcome(source, busy.url()) is ErrorCode.HTTP_5XX
        with pytest.raises(Fault) as caught:
            source.fetch(busy.url("/elsewhere"), deadline())
        assert caught.value.code is ErrorCode.HTTP_5XX
        assert caught.value.retry_after_s == pytest.approx(1, abs=0.3)
        assert busy.hits() == 1
        assert outcome(source, other.url()) == BODY
        time.sleep(caught.value.retry_after_s or 0)
        assert outcome(source, busy.url()) == BODY


@pytest.mark.parametrize("status", [429, 500, 503])
def test_given_a_failure_without_a_time_when_asked_again_then_the_host_is_asked(
    source: HttpSource, status: int
) -> None:
    after = {"Retry-After": "60"} if status == 500 else {}
    with ScriptedHttp({"/": [Reply(status, headers=after), Reply(200, BODY)]}) as server:
        assert outcome(source, server.url()) is ErrorCode.HTTP_5XX
        assert outcome(source, server.url()) == BODY


def test_given_more_fetches_than_a_host_gets_when_they_run_then_others_wait_or_are_refused() -> (
    None
):
    source = HttpSource(HttpLimits(max_per_host=2), ANYWHERE)
    with (
        ScriptedHttp({"/": [Reply(200, BODY, delay_s=0.3)]}) as server,
        ThreadPoolExecutor(4) as threads,
    ):
        running = [threads.submit(outcome, source, server.url()) for _ in range(4)]
        time.sleep(0.15)
        assert server.hits() == 2
        assert outcome(source, server.url(), 0.05) is ErrorCode.WORKER_OVERLOADED
        assert [one.result() for one in running] == [BODY] * 4
    source.close()


def test_given_hosts_with_one_place_when_they_redirect_to_each_other_then_nothing_locks() -> None:
    source = HttpSource(HttpLimits(max_per_host=1), ANYWHERE)
    with ScriptedHttp() as one, ScriptedHttp() as two, ThreadPoolExecutor(8) as threads:
        for here, there in ((one, two), (two, one)):
            here.routes |= {
                "/go": [Reply(302, headers={"Location": there.url("/end")}, delay_s=0.01)],
                "/loop": [Reply(302, headers={"Location": here.url("/end")})],
                "/end": [Reply(200, BODY)],
            }
        urls = [server.url(path) for server in (one, two) for path in ("/go", "/loop")] * 8
        assert set(threads.map(lambda url: outcome(source, url, 5), urls)) == {BODY}
    source.close()
