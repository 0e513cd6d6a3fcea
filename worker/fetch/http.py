"""http:// and https:// from strangers: guarded addresses, bounded everything.

No cookies, no proxies from the environment, no redirects or decompression behind one's back. What
a server sends and a log is told are kept apart: it may repeat what it was asked, and the query of a
signed URL is a credential.
"""

import logging
import re
import ssl
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import httpcore2

from producer.contract import public_uri
from worker.errors import ErrorCode, Fault
from worker.fetch.body import check_length, collect, gunzip
from worker.fetch.dial import Budget, GuardedBackend
from worker.fetch.netguard import Allow, check_address, ports_named
from worker.fetch.politeness import Politeness
from worker.fetch.proxy import ProxiedBackend, parse_proxy
from worker.fetch.reply import REDIRECTS, opted_out, refusal, retry_after_s
from worker.fetch.resolve import Lookup, Resolver, lookup
from worker.fetch.url import WEB_PORTS, Target, parse_url, redirect

__all__ = ["USER_AGENT", "HttpLimits", "HttpSource"]

USER_AGENT = "captionq/0.1 (image captioning)"

MAX_HEAD_BYTES = 256 * 1024
"""Of a response, interim ones (1xx) included; h11 takes no more than 100 KiB for a single one."""

MAX_FRAMING = 2
"""Bytes on the wire for each that a body may have: chunks of a few bytes are mostly framing."""

# Statuses whose Retry-After speaks for the whole host (RFC 6585, 4; RFC 9110, 15.6.4).
_BUSY = frozenset({429, 503})

# Every exception of httpcore2; a test holds this against the package.
_CODES: dict[type[Exception], ErrorCode] = {
    httpcore2.PoolTimeout: ErrorCode.WORKER_OVERLOADED,
    httpcore2.ConnectionNotAvailable: ErrorCode.WORKER_OVERLOADED,
    httpcore2.ConnectTimeout: ErrorCode.CONNECT_FAILED,
    httpcore2.ReadTimeout: ErrorCode.FETCH_TIMEOUT,
    httpcore2.WriteTimeout: ErrorCode.FETCH_TIMEOUT,
    httpcore2.TimeoutException: ErrorCode.FETCH_TIMEOUT,
    httpcore2.ConnectError: ErrorCode.CONNECT_FAILED,
    httpcore2.ReadError: ErrorCode.CONNECT_FAILED,
    httpcore2.WriteError: ErrorCode.CONNECT_FAILED,
    httpcore2.NetworkError: ErrorCode.CONNECT_FAILED,
    httpcore2.ProxyError: ErrorCode.CONNECT_FAILED,
    httpcore2.RemoteProtocolError: ErrorCode.CONNECT_FAILED,
    httpcore2.ProtocolError: ErrorCode.CONNECT_FAILED,
    httpcore2.LocalProtocolError: ErrorCode.URL_INVALID,
    httpcore2.UnsupportedProtocol: ErrorCode.URL_INVALID,
}
# The same errors once the head of the response has been read.
_BODY_CODES = _CODES | {
    httpcore2.ReadError: ErrorCode.BODY_INCOMPLETE,
    httpcore2.RemoteProtocolError: ErrorCode.BODY_INCOMPLETE,
}


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one fetch may cost. Seconds, bytes, counts.

    Attributes:
        idle_s: the longest silence of a server.
        total_s: for all of a fetch, redirects included.
        max_bytes: of the body, before and after decompression.
        max_retry_after_s: the longest wait taken over from a Retry-After.
        max_per_host: fetches at a time from one host and port.
        ports: those a URL may name; `allow` adds its own for its networks alone.
    """

    dns_s: float = 2
    connect_s: float = 3
    idle_s: float = 5
    total_s: float = 10
    max_redirects: int = 3
    max_bytes: int = 20 * 1024 * 1024
    max_retry_after_s: float = 300
    max_per_host: int = 8
    max_connections: int = 64
    max_keepalive: int = 32
    keepalive_s: float = 15
    ports: frozenset[int] = WEB_PORTS


class HttpSource:
    """Fetches over HTTP/1.1, from any number of threads.

    Args:
        limits: what a fetch may cost.
        allow: exceptions to the address rules; empty in production, unless the images lie on
            one's own network.
        user_agent: says who asks; its product name is what X-Robots-Tag may address.
        honour_opt_out: refuse images whose host answers `X-Robots-Tag: noai`.
        proxy: `http://host:port` that fetches go through; worker/fetch/proxy.py says what changes.
        ssl_context: trust; the system's by default.
        resolve: (host, port) -> addresses; a seam for tests.

    Raises:
        ValueError: for a proxy of another form.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        allow: Collection[Allow] = (),
        *,
        user_agent: str = USER_AGENT,
        honour_opt_out: bool = True,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Lookup = lookup,
    ) -> None:
        self._limits = limits = limits or HttpLimits()
        self._honour_opt_out = honour_opt_out
        self._agent = user_agent.partition("/")[0]
        self._headers = [
            (b"User-Agent", user_agent.encode("ascii")),
            (b"Accept", b"image/*,*/*;q=0.5"),
            (b"Accept-Encoding", b"identity"),
        ]
        self._ports = ports_named(limits.ports, allow)
        self._proxied = proxy is not None
        self._politeness = Politeness(limits.max_per_host)
        self._budget = budget = Budget()
        check = partial(check_address, allow=tuple(allow), ports=limits.ports)
        resolver = Resolver(resolve, limits.dns_s)
        # In detail it logs headers, and a redirect's Location may hold a signature.
        logging.getLogger("httpcore2").setLevel(logging.INFO)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl_context or httpcore2.default_ssl_context(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive,
            keepalive_expiry=limits.keepalive_s,
            network_backend=GuardedBackend(check, budget, resolver)
            if proxy is None
            else ProxiedBackend(parse_proxy(proxy), check, budget, resolver),
        )

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the body at `uri`; see `worker.fetch.Source`.

        Raises:
            Fault: url_invalid, url_blocked, dns_failed, connect_failed, tls_failed, http_4xx,
                http_5xx (with the server's Retry-After, or what is left of an earlier one),
                redirect_limit, source_opted_out, encoding_unsupported, body_too_large,
                body_incomplete, fetch_timeout, worker_overloaded (no connection became free, or
                no turn at the host).
        """
        target = parse_url(uri, self._ports)
        with self._budget.until(min(deadline, time.monotonic() + self._limits.total_s)):
            for _ in range(self._limits.max_redirects + 1):
                # A redirect gives its host's place back before it waits for one at the next.
                with self._politeness.turn((target.host, target.port), self._budget.clip(None)):
                    answer = self._get(target)
                if isinstance(answer, bytes):
                    return answer
                target = answer
        raise Fault(ErrorCode.REDIRECT_LIMIT, f"more than {self._limits.max_redirects}")

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def _get(self, target: Target) -> bytes | Target:
        """The body, or where a redirect leads."""
        whole = self._proxied and target.scheme == "http"
        request = httpcore2.Request(
            "GET",
            httpcore2.URL(
                scheme=target.scheme,
                host=target.host,
                port=target.port,
                target=target.url if whole else target.path,
            ),
            headers=[(b"Host", target.authority.encode("ascii")), *self._headers],
            extensions={
                "timeout": {
                    "pool": self._budget.clip(None),
                    "connect": self._limits.connect_s,
                    "read": self._limits.idle_s,
                    "write": self._limits.idle_s,
                }
            },
        )
        self._budget.grant(MAX_HEAD_BYTES, ErrorCode.CONNECT_FAILED)
        with _mapped(_CODES, target):
            response = self._pool.handle_request(request)
        try:
            return self._read(target, response)
        finally:
            response.close()

    def _read(self, target: Target, response: httpcore2.Response) -> bytes | Target:
        limits = self._limits

        def header(name: bytes) -> list[str]:
            return [v.decode("latin-1") for k, v in response.headers if k.lower() == name]

        if response.status in REDIRECTS and (location := header(b"location")):
            there = location[0].encode("latin-1").decode("utf-8", "replace")
            return redirect(target, there, self._ports)
        place = public_uri(target.url)  # the query of a signed URL is a credential
        if code := refusal(response.status):
            wait = None
            if code is ErrorCode.HTTP_5XX and (waits := header(b"retry-after")):
                wait = retry_after_s(waits[0], datetime.now(UTC), limits.max_retry_after_s)
            if wait and response.status in _BUSY:
                self._politeness.leave_alone((target.host, target.port), wait)
            raise Fault(code, f"{place}: {response.status}", wait)
        if self._honour_opt_out and opted_out(header(b"x-robots-tag"), self._agent):
            raise Fault(ErrorCode.SOURCE_OPTED_OUT, f"{place}: X-Robots-Tag")
        encoding = ",".join(header(b"content-encoding")).strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Fault(ErrorCode.ENCODING_UNSUPPORTED, f"{place}: {encoding[:20]!r}")
        # h11 has refused lengths that are not numbers, or that disagree.
        check_length(next(map(int, header(b"content-length")), None), limits.max_bytes)
        self._budget.grant(
            MAX_HEAD_BYTES + MAX_FRAMING * limits.max_bytes, ErrorCode.BODY_TOO_LARGE
        )
        with _mapped(_BODY_CODES, target):
            if encoding.endswith("gzip"):
                return collect(gunzip(response.iter_stream(), limits.max_bytes), limits.max_bytes)
            return collect(response.iter_stream(), limits.max_bytes)


@contextmanager
def _mapped(codes: dict[type[Exception], ErrorCode], target: Target) -> Iterator[None]:
    try:
        yield
    except tuple(codes) as exc:
        # Messages on a protocol quote the peer after their first words.
        said = str(exc)
        if isinstance(exc, httpcore2.ProtocolError):
            said = re.split(r"[:'\"(]", said, maxsplit=1)[0]
        where = f"{target.host}:{target.port}"
        raise Fault(codes[type(exc)], f"{where}: {type(exc).__name__}: {said}") from exc
