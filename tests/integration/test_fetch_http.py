"""HttpSource against a real server that misbehaves by script."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpcore2
import pytest

from tests.servers import Reply, ScriptedHttp, deadline
from tests.timing import least_s
from worker.errors import ErrorCode, Fault
from worker.fetch import client as client_module
from worker.fetch.http import HttpLimits, HttpSource
from worker.fetch.netguard import Allow, parse_allow

BODY = bytes(range(256)) * 40
LIMITS = HttpLimits(dns_s=0.5, connect_s=0.5, idle_s=0.5, total_s=5, max_bytes=20_000)


@pytest.fixture
def server() -> Iterator[ScriptedHttp]:
    with ScriptedHttp() as server:
        yield server


@pytest.fixture
def source(server: ScriptedHttp) -> Iterator[Callable[..., HttpSource]]:
    """Makes sources that may fetch from the server, and closes them."""
    made = []

    def make(limits: HttpLimits = LIMITS, allow: str | None = None, **options: Any) -> HttpSource:
        entry = parse_allow(allow or f"127.0.0.1/32:{server.port}")
        made.append(HttpSource(limits, [entry], **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def failure(source: HttpSource, url: str, within_s: float = 5) -> Fault:
    with pytest.raises(Fault) as caught:
        source.fetch(url, deadline(within_s))
    return caught.value


# What is asked


def test_given_an_image_when_fetched_then_the_request_is_plain_and_the_connection_is_kept(
    server: ScriptedHttp, source: Callable[..., HttpSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.routes["/a b.png"] = []
    server.routes["/%C3%BC.png"] = [
        Reply(200, BODY, {"Set-Cookie": "id=1", "Content-Length": "10240"})
    ]
    http = source()
    for _ in range(3):
        assert http.fetch(server.url("/ü.png?size=1#top"), deadline()) == BODY
    assert {seen.peer_port for seen in server.requests} == {server.requests[0].peer_port}
    assert {seen.path for seen in server.requests} == {"/%C3%BC.png?size=1"}
    headers = dict(server.requests[-1].headers)
    assert headers.pop("host") == f"127.0.0.1:{server.port}"
    assert headers.pop("user-agent").startswith("captionq/")
    assert headers.pop("accept-encoding") == "identity"
    assert set(headers) == {"accept"}


def test_given_a_user_agent_when_fetched_then_the_server_reads_it(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    server.routes["/"] = [Reply(200, BODY)]
    source(user_agent="museum/2 (+https://example.org)").fetch(server.url(), deadline())
    assert server.requests[0].headers["user-agent"] == "museum/2 (+https://example.org)"


def test_given_many_threads_when_they_fetch_then_each_gets_its_own_body(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    http = source()
    paths = [f"/{n}" for n in range(60)]
    server.routes |= {path: [Reply(200, path.encode() * 500, delay_s=0.01)] for path in paths}
    with ThreadPoolExecutor(16) as threads:
        bodies = list(threads.map(lambda path: http.fetch(server.url(path), deadline()), paths))
    assert bodies == [path.encode() * 500 for path in paths]


# What is answered


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(404), ErrorCode.HTTP_4XX),
        (Reply(403, BODY), ErrorCode.HTTP_4XX),
        (Reply(304), ErrorCode.HTTP_4XX),
        (Reply(302), ErrorCode.HTTP_4XX),
        (Reply(429), ErrorCode.HTTP_5XX),
        (Reply(500), ErrorCode.HTTP_5XX),
        (Reply(503), ErrorCode.HTTP_5XX),
        (Reply(200, BODY, {"X-Robots-Tag": "noai"}), ErrorCode.SOURCE_OPTED_OUT),
        (Reply(200, BODY, {"Content-Encoding": "br"}), ErrorCode.ENCODING_UNSUPPORTED),
        (Reply(200, BODY, {"Content-Encoding": "gzip, gzip"}), ErrorCode.ENCODING_UNSUPPORTED),
        (Reply(200, BODY, {"Content-Encoding": "deflate"}), ErrorCode.ENCODING_UNSUPPORTED),
        (Reply(200, b"x" * 20_001), ErrorCode.BODY_TOO_LARGE),
        (Reply(200, b"x", {"Content-Length": "9" * 18}), ErrorCode.BODY_TOO_LARGE),
        (Reply(200, b"x" * 20_001, chunked=True), ErrorCode.BODY_TOO_LARGE),
        (Reply(200, b"x" * 10_000_000, gzip=True), ErrorCode.BODY_TOO_LARGE),
        (Reply(200, BODY, truncate_at=5_000), ErrorCode.BODY_INCOMPLETE),
        (Reply(200, BODY, truncate_at=0), ErrorCode.BODY_INCOMPLETE),
        (Reply(200, BODY, truncate_at=5_000, chunked=True), ErrorCode.BODY_INCOMPLETE),
        (Reply(200, BODY, gzip=True, truncate_at=100), ErrorCode.BODY_INCOMPLETE),
        (Reply(200, BODY, {"Content-Encoding": "gzip"}), ErrorCode.BODY_INCOMPLETE),
        (Reply(200, b"", {"Content-Encoding": "gzip"}), ErrorCode.BODY_INCOMPLETE),
        (Reply(hang_up=True), ErrorCode.CONNECT_FAILED),
        (Reply(200, BODY, {"Content-Length": "ten"}), ErrorCode.CONNECT_FAILED),
        (Reply(200, BODY, {"Content-Length": "9" * 5_000}), ErrorCode.CONNECT_FAILED),
        (Reply(200, BODY, {"X": "x" * 200_000}), ErrorCode.CONNECT_FAILED),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:60],
)
def test_given_a_reply_that_is_no_image_when_fetched_then_the_code_says_why_and_all_goes_on(
    server: ScriptedHttp, source: Callable[..., HttpSource], reply: Reply, code: ErrorCode
) -> None:
    server.routes |= {"/": [reply], "/good": [Reply(200, BODY)]}
    http = source()
    assert failure(http, server.url()).code is code
    assert server.hits("/") == 1
    assert http.fetch(server.url("/good"), deadline()) == BODY


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, BODY),
        Reply(203, BODY),
        Reply(200, b"x" * 20_000),
        Reply(200, b"x" * 20_000, chunked=True),
        Reply(200, b"x" * 20_000, gzip=True),
        Reply(200, b"", gzip=True),
        Reply(200, BODY, gzip=True, chunked=True),
        Reply(200, BODY, {"Content-Encoding": "identity"}),
        Reply(200, BODY, {"X-Robots-Tag": "noindex"}),
        Reply(200, b""),
    ],
    ids=lambda value: repr(value)[-60:],
)
def test_given_a_proper_body_however_sent_when_fetched_then_it_comes_whole(
    server: ScriptedHttp, source: Callable[..., HttpSource], reply: Reply
) -> None:
    server.routes["/"] = [reply]
    assert source().fetch(server.url(), deadline()) == reply.body


def test_given_opt_outs_are_not_honoured_when_fetched_then_the_body_comes(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    server.routes["/"] = [Reply(200, BODY, {"X-Robots-Tag": "noai"})]
    assert source(honour_opt_out=False).fetch(server.url(), deadline()) == BODY


@pytest.mark.parametrize(
    ("status", "value", "wait_s"),
    [(503, "7", 7.0), (429, "1000000", 300.0), (503, "soon", None), (404, "7", None)],
)
def test_given_a_retry_after_when_the_server_fails_then_the_fault_carries_it_capped(
    server: ScriptedHttp,
    source: Callable[..., HttpSource],
    status: int,
    value: str,
    wait_s: float | None,
) -> None:
    server.routes["/"] = [Reply(status, headers={"Retry-After": value})]
    assert failure(source(), server.url()).retry_after_s == wait_s


@pytest.mark.parametrize(
    "reply",
    [
        Reply(503),
        Reply(404),
        Reply(200, BODY, {"X-Robots-Tag": "noai"}),
        Reply(200, BODY, {"Content-Encoding": "br"}),
    ],
    ids=["503", "404", "opted out", "another encoding"],
)
def test_given_a_signed_url_when_it_fails_then_the_log_is_not_told_its_signature(
    server: ScriptedHttp, source: Callable[..., HttpSource], reply: Reply
) -> None:
    server.routes["/cat.png?X-Amz-Signature=secret"] = [reply]
    fault = failure(source(), server.url("/cat.png?X-Amz-Signature=secret"))
    assert server.url("/cat.png") in fault.detail
    assert "secret" not in str(fault)


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_given_three_redirects_when_fetched_then_they_are_followed(
    server: ScriptedHttp, source: Callable[..., HttpSource], status: int
) -> None:
    server.routes |= {
        "/1": [Reply(status, headers={"Location": "2"})],
        "/2": [Reply(status, headers={"Location": server.url("/3")})],
        "/3": [Reply(status, headers={"Location": f"//127.0.0.1:{server.port}/4"})],
        "/4": [Reply(200, BODY)],
    }
    assert source().fetch(server.url("/1"), deadline()) == BODY


def test_given_endless_redirects_when_fetched_then_four_requests_are_made(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    server.routes["/"] = [Reply(302, headers={"Location": "/"})]
    assert failure(source(), server.url()).code is ErrorCode.REDIRECT_LIMIT
    assert server.hits() == 4


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1/", ErrorCode.URL_BLOCKED),
        ("http://169.254.169.254/latest/meta-data/", ErrorCode.URL_BLOCKED),
        ("http://[::1]/", ErrorCode.URL_BLOCKED),
        ("http://[::ffff:127.0.0.1]/", ErrorCode.URL_BLOCKED),
        ("http://0/", ErrorCode.URL_INVALID),
        ("http://127.0.0.1:22/", ErrorCode.URL_INVALID),
        ("http://user@127.0.0.1/", ErrorCode.URL_INVALID),
        ("file:///etc/passwd", ErrorCode.URL_INVALID),
        ("http://b\u00e4h\ufffd/", ErrorCode.URL_INVALID),
    ],
)
def test_given_a_redirect_to_a_forbidden_place_when_fetched_then_it_is_not_followed(
    server: ScriptedHttp, source: Callable[..., HttpSource], location: str, code: ErrorCode
) -> None:
    raw = location.encode().decode("latin-1")  # as UTF-8 on the wire
    server.routes["/"] = [Reply(302, headers={"Location": raw})]
    assert failure(source(), server.url()).code is code


# Addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_given_a_local_address_when_not_allowed_then_nothing_connects(
    server: ScriptedHttp, host: str
) -> None:
    http = HttpSource(HttpLimits(ports=frozenset({server.port})))
    assert failure(http, server.url(host=host)).code is ErrorCode.URL_BLOCKED
    assert server.hits() == 0
    http.close()


def test_given_one_forbidden_answer_among_good_ones_when_fetched_then_nothing_connects(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    http = source(resolve=lambda host, port: ["127.0.0.1", "10.0.0.1"])
    assert failure(http, server.url(host="cat.example")).code is ErrorCode.URL_BLOCKED
    assert server.hits() == 0


def test_given_a_name_when_fetched_then_it_is_looked_up_once_and_named_in_the_request(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    server.routes["/"] = [Reply(200, BODY)]
    http = source(resolve=resolve)
    assert http.fetch(server.url(host="cat.example"), deadline()) == BODY
    assert asked == [("cat.example", server.port)]
    assert server.requests[0].headers["host"] == f"cat.example:{server.port}"


def test_given_dead_addresses_when_fetched_then_two_are_tried_at_most(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    server.routes["/"] = [Reply(200, BODY)]
    allow = f"127.0.0.0/8:{server.port}"
    second = source(allow=allow, resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"])
    assert second.fetch(server.url(host="cat.example"), deadline()) == BODY
    third = source(allow=allow, resolve=lambda host, port: ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
    assert failure(third, server.url(host="cat.example")).code is ErrorCode.CONNECT_FAILED


def no_such_host(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no such host")


def slow_lookup(host: str, port: int) -> list[str]:
    time.sleep(1.5)
    return ["127.0.0.1"]


@pytest.mark.parametrize("resolve", [no_such_host, slow_lookup, lambda host, port: []])
def test_given_a_name_that_does_not_resolve_in_time_when_fetched_then_it_is_a_dns_failure(
    server: ScriptedHttp, source: Callable[..., HttpSource], resolve: Any
) -> None:
    def attempt() -> None:
        fault = failure(source(resolve=resolve), server.url(host="cat.example"))
        assert fault.code is ErrorCode.DNS_FAILED
        assert fault.transient

    assert least_s(attempt, 1.2) < 1.2


def test_given_a_peer_that_is_not_the_address_dialled_when_connected_then_it_is_refused(
    server: ScriptedHttp, source: Callable[..., HttpSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "getpeername", lambda _: ("10.0.0.1", server.port))
    assert failure(source(), server.url()).code is ErrorCode.URL_BLOCKED
    assert server.hits() == 0


# Time


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, BODY, delay_s=3),
        Reply(200, BODY, drip_s=0.05),
        Reply(200, BODY, {"X": "x" * 500}, drip_s=0.05),
        Reply(200, BODY, drip_s=0.05, chunked=True),
        Reply(302, BODY, {"Location": "/"}, delay_s=0.3),
    ],
    ids=["silence", "drip", "dripped head", "dripped chunks", "slow redirects"],
)
def test_given_a_server_that_takes_its_time_when_fetched_then_the_deadline_ends_it(
    server: ScriptedHttp, source: Callable[..., HttpSource], reply: Reply
) -> None:
    server.routes["/"] = [reply]
    http = source(HttpLimits(idle_s=5, max_redirects=100))

    def attempt() -> None:
        assert failure(http, server.url(), within_s=0.7).code is ErrorCode.FETCH_TIMEOUT

    assert 0.6 < least_s(attempt, 1.2) < 1.2


def test_given_limits_when_a_server_is_silent_or_slow_then_they_hold_without_a_deadline(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    server.routes |= {
        "/idle": [Reply(200, BODY, delay_s=3)],
        "/drip": [Reply(200, BODY, drip_s=0.05)],
    }
    for path, limits in (("/idle", HttpLimits(idle_s=0.3)), ("/drip", HttpLimits(total_s=0.3))):

        def attempt(path: str = path, limits: HttpLimits = limits) -> None:
            assert failure(source(limits), server.url(path), 60).code is ErrorCode.FETCH_TIMEOUT

        assert 0.2 < least_s(attempt, 0.9) < 0.9


def test_given_a_deadline_that_passed_when_fetched_then_nothing_is_asked(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    assert failure(source(), server.url(), within_s=-1).code is ErrorCode.FETCH_TIMEOUT
    assert server.hits() == 0


def test_given_no_free_connection_when_fetched_then_the_worker_is_overloaded(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    server.routes["/slow"] = [Reply(200, BODY, delay_s=1)]
    http = source(HttpLimits(max_connections=1))
    slow = threading.Thread(target=http.fetch, args=(server.url("/slow"), deadline()))
    slow.start()
    while not server.hits("/slow"):
        time.sleep(0.01)
    assert failure(http, server.url(), within_s=0.2).code is ErrorCode.WORKER_OVERLOADED
    slow.join()


def test_given_a_closed_port_when_fetched_then_the_connection_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    http = HttpSource(LIMITS, [parse_allow(f"127.0.0.1/32:{port}")])
    assert failure(http, f"http://127.0.0.1:{port}/").code is ErrorCode.CONNECT_FAILED
    http.close()


# TLS


@pytest.fixture
def secure(certificate: Path) -> Iterator[ScriptedHttp]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ScriptedHttp({"/": [Reply(200, BODY)]}, tls=context) as server:
        yield server


@pytest.mark.parametrize(
    ("host", "trusted", "code"),
    [
        ("cat.example", True, None),
        ("cat.example", False, ErrorCode.TLS_FAILED),
        ("dog.example", True, ErrorCode.TLS_FAILED),
        ("127.0.0.1", True, ErrorCode.TLS_FAILED),
    ],
)
def test_given_https_when_fetched_then_the_certificate_must_be_trusted_and_name_the_host(
    secure: ScriptedHttp, certificate: Path, host: str, trusted: bool, code: ErrorCode | None
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate) if trusted else None)
    http = HttpSource(
        LIMITS,
        [parse_allow(f"127.0.0.1/32:{secure.port}")],
        ssl_context=trust,
        resolve=lambda host, port: ["127.0.0.1"],
    )
    if code is None:
        assert http.fetch(secure.url(host=host), deadline()) == BODY
    else:
        assert failure(http, secure.url(host=host)).code is code
        assert secure.hits() == 0
    http.close()


def test_given_https_when_it_redirects_to_http_then_that_is_refused(
    secure: ScriptedHttp, server: ScriptedHttp, certificate: Path
) -> None:
    secure.routes["/"] = [Reply(302, headers={"Location": server.url()})]
    http = HttpSource(
        LIMITS,
        [parse_allow("127.0.0.1/32:*")],
        ssl_context=ssl.create_default_context(cafile=str(certificate)),
        resolve=lambda host, port: ["127.0.0.1"],
    )
    assert failure(http, secure.url(host="cat.example")).code is ErrorCode.REDIRECT_LIMIT
    assert server.hits() == 0
    http.close()


def test_given_a_server_without_tls_when_asked_for_it_then_tls_failed(
    server: ScriptedHttp, source: Callable[..., HttpSource]
) -> None:
    url = server.url().replace("http:", "https:")
    assert failure(source(), url).code is ErrorCode.TLS_FAILED


def test_given_a_server_silent_in_the_handshake_when_fetched_then_the_deadline_ends_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        http = HttpSource(HttpLimits(), [parse_allow(f"127.0.0.1/32:{port}")])

        def attempt() -> None:
            assert failure(http, f"https://127.0.0.1:{port}/", within_s=0.4).transient

        assert least_s(attempt, 0.9) < 0.9
        http.close()


# The seam to httpcore2


def test_given_the_exceptions_of_httpcore2_when_held_against_the_table_then_none_is_missing() -> (
    None
):
    theirs = {
        value
        for value in vars(httpcore2).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert theirs == set(client_module.CODES)
    assert theirs == set(client_module.BODY_CODES)


def test_given_any_port_is_allowed_somewhere_when_fetched_then_public_addresses_keep_theirs() -> (
    None
):
    everywhere = Allow(parse_allow("127.0.0.0/8:*").network, None)
    http = HttpSource(LIMITS, [everywhere], resolve=lambda host, port: ["8.8.8.8"])
    assert failure(http, "http://cat.example:8080/").code is ErrorCode.URL_BLOCKED
    http.close()
