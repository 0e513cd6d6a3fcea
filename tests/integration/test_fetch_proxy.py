"""HttpSource through a real proxy: who is dialled, what is still checked, and how it ends."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.raw_server import RawServer
from tests.servers import Reply, ScriptedHttp, deadline
from tests.timing import least_s
from worker.errors import ErrorCode, Fault
from worker.fetch.http import HttpLimits, HttpSource
from worker.fetch.netguard import parse_allow
from worker.fetch.proxy import parse_proxy

BODY = b"image" * 200
LIMITS = HttpLimits(dns_s=0.3, connect_s=1, idle_s=1, total_s=2)


class Proxy(RawServer):
    """Forwards what names a whole URL, tunnels what CONNECT asks for; every name is 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__(self._forward)
        self.status = b"200 Connection established"

    def _forward(self, peer: socket.socket) -> None:
        head = self.heads[-1]
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        where = urlsplit(target if method != b"CONNECT" else b"//" + target)
        if not self.status.startswith(b"2"):
            peer.sendall(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % self.status)
            return
        with socket.create_connection(("127.0.0.1", where.port or 80)) as there:
            if method == b"CONNECT":
                peer.sendall(b"HTTP/1.1 %b\r\n\r\n" % self.status)
            else:
                line = b"GET %b HTTP/1.1\r\nConnection: close\r\n" % (where.path or b"/")
                there.sendall(line + head.split(b"\r\n", 1)[1])
            back = threading.Thread(target=relay, args=(there, peer))
            back.start()
            if method == b"CONNECT":
                relay(peer, there)
            back.join()


def relay(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


def no_such_host(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no such host")


def outcome(source: HttpSource, url: str, within_s: float = 5) -> bytes | ErrorCode:
    try:
        return source.fetch(url, deadline(within_s))
    except Fault as fault:
        return fault.code
    finally:
        source.close()


def test_given_a_proxy_when_plain_http_is_fetched_then_it_is_asked_for_the_whole_url(
    proxy: Proxy,
) -> None:
    with ScriptedHttp({"/a.png": [Reply(200, BODY)]}) as server:
        source = HttpSource(
            LIMITS,
            [parse_allow(f"127.0.0.1/32:{server.port}")],
            proxy=proxy.url(),
            resolve=no_such_host,  # only the proxy knows the name
        )
        url = server.url("/a.png?q", host="cat.example")
        assert outcome(source, url) == BODY
    assert proxy.heads[0].startswith(b"GET %b HTTP/1.1\r\n" % url.encode())
    assert server.requests[0].headers["host"] == f"cat.example:{server.port}"


@pytest.mark.parametrize(
    ("host", "trusted", "code"),
    [
        ("cat.example", True, None),
        ("cat.example", False, ErrorCode.TLS_FAILED),
        ("dog.example", True, ErrorCode.TLS_FAILED),
    ],
)
def test_given_a_proxy_when_https_is_fetched_then_tls_is_with_the_host_behind_a_tunnel(
    proxy: Proxy, certificate: Path, host: str, trusted: bool, code: ErrorCode | None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ScriptedHttp({"/": [Reply(200, BODY)]}, tls=context) as server:
        source = HttpSource(
            LIMITS,
            [parse_allow(f"127.0.0.1/32:{server.port}")],
            proxy=proxy.url(),
            ssl_context=ssl.create_default_context(cafile=str(certificate) if trusted else None),
            resolve=no_such_host,
        )
        assert outcome(source, server.url(host=host)) == (code or BODY)
    asked = f"{host}:{server.port}".encode()
    assert proxy.heads == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (asked, asked)]


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        ("169.254.169.254", ["8.8.8.8"]),
        ("[::1]", ["8.8.8.8"]),
        ("[::ffff:10.0.0.1]", ["8.8.8.8"]),
        ("cat.example", ["10.0.0.1"]),
        ("cat.example", ["8.8.8.8", "::1"]),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_given_a_forbidden_address_when_it_is_known_here_then_the_proxy_is_not_asked(
    proxy: Proxy, scheme: str, host: str, answers: list[str]
) -> None:
    source = HttpSource(LIMITS, proxy=proxy.url(), resolve=lambda host, port: answers)
    assert outcome(source, f"{scheme}://{host}/") is ErrorCode.URL_BLOCKED
    assert proxy.heads == []


def test_given_a_public_v6_literal_when_fetched_by_https_then_the_tunnel_names_it_in_brackets(
    proxy: Proxy,
) -> None:
    proxy.status = b"403 Forbidden"
    source = HttpSource(LIMITS, proxy=proxy.url())
    assert outcome(source, "https://[2606:4700::1111]/") is ErrorCode.CONNECT_FAILED
    assert proxy.heads[0].startswith(b"CONNECT [2606:4700::1111]:443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99_999,
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 O",
        b"SSH-2.0\r\n\r\n",
        b"",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_given_a_proxy_that_opens_no_tunnel_when_fetched_then_the_connection_failed(
    answer: bytes,
) -> None:
    limits = HttpLimits(max_connections=1)
    with RawServer(lambda peer: peer.sendall(answer)) as proxy:
        source = HttpSource(limits, proxy=proxy.url(), resolve=no_such_host)
        for _ in range(3):  # nothing holds on to the one connection there is
            with pytest.raises(Fault) as caught:
                source.fetch("https://cat.example/", deadline())
            assert caught.value.code is ErrorCode.CONNECT_FAILED
        source.close()


def test_given_a_proxy_that_drips_when_fetched_then_the_deadline_ends_it() -> None:
    for scheme in ("http", "https"):
        with RawServer(lambda peer: None) as proxy:
            proxy.answer = lambda peer, proxy=proxy: proxy.drip(peer, b"HTTP/1.1 200 OK" * 9, 0.05)
            source = HttpSource(HttpLimits(), proxy=proxy.url(), resolve=no_such_host)
            url = f"{scheme}://cat.example/"

            def attempt(source: HttpSource = source, url: str = url) -> None:
                assert outcome(source, url, 0.5) is ErrorCode.FETCH_TIMEOUT

            assert least_s(attempt, 1) < 1


def test_given_no_proxy_where_one_is_set_when_fetched_then_the_connection_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    source = HttpSource(LIMITS, proxy=f"http://127.0.0.1:{port}", resolve=no_such_host)
    assert outcome(source, "http://cat.example/") is ErrorCode.CONNECT_FAILED


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://proxy.example:3128", ("proxy.example", 3128)),
        ("http://proxy.example:3128/", ("proxy.example", 3128)),
        ("http://10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("http://[fd00::1]:8080", ("fd00::1", 8080)),
    ],
)
def test_given_a_proxys_url_when_parsed_then_it_is_a_host_and_a_port(
    url: str, place: tuple[str, int]
) -> None:
    assert parse_proxy(url) == place


@pytest.mark.parametrize(
    "url",
    ["", "proxy.example:3128", "http://proxy.example", "https://proxy.example:3128",
     "http://user:password@proxy.example:3128", "http://proxy.example:0",
     "http://proxy.example:65536", "http://proxy.example:3128/x", "socks5://proxy.example:1080",
     "http://[::1:3128", "http://proxy.example:3128\n"],
)  # fmt: skip
def test_given_what_is_no_proxys_url_when_parsed_then_the_setting_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="FETCH_PROXY"):
        parse_proxy(url)
