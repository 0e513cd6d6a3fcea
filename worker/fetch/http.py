"""http:// and https:// from strangers: guarded addresses, bounded everything.

No cookies, no proxies from the environment, no redirects or decompression behind one's back.
"""

import ssl
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import httpcore2

from producer.contract import public_uri
from worker.errors import ErrorCode, Fault
from worker.fetch.body import check_length, collect, gunzip
from worker.fetch.dial import Deadline, GuardedBackend, lookup
from worker.fetch.netguard import (
    WEB_PORTS,
    Allow,
    Target,
    check_address,
    parse_url,
    redirect,
)
from worker.fetch.reply import REDIRECTS, opted_out, refusal, retry_after_s

__all__ = ["USER_AGENT", "HttpLimits", "HttpSource"]

USER_AGENT = "captionq/0.1 (image captioning)"

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
        ports: those a URL may name; `allow` adds its own for its networks alone.
    """

    dns_s: float = 2
    connect_s: float = 3
    idle_s: float = 5
    total_s: float = 10
    max_redirects: int = 3
    max_bytes: int = 20 * 1024 * 1024
    max_retry_after_s: float = 300
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
        ssl_context: trust; the system's by default.
        resolve: (host, port) -> addresses; a seam for tests.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        allow: Collection[Allow] = (),
        *,
        user_agent: str = USER_AGENT,
        honour_opt_out: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Callable[[str, int], list[str]] = lookup,
    ) -> None:
        self._limits = limits = limits or HttpLimits()
        self._honour_opt_out = honour_opt_out
        self._agent = user_agent.partition("/")[0]
        self._headers = [
            (b"User-Agent", user_agent.encode("ascii")),
            (b"Accept", b"image/*,*/*;q=0.5"),
            (b"Accept-Encoding", b"identity"),
        ]
        # What a URL may name; which address may be dialled on it is decided at the dial.
        self._ports: Collection[int] | None = limits.ports.union(
            *(entry.ports for entry in allow if entry.ports is not None)
        )
        if any(entry.ports is None for entry in allow):
            self._ports = None
        self._deadline = Deadline()
        self._backend = GuardedBackend(
            partial(check_address, allow=tuple(allow), ports=limits.ports),
            self._deadline,
            limits.dns_s,
            resolve,
        )
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl_context or httpcore2.default_ssl_context(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive,
            keepalive_expiry=limits.keepalive_s,
            network_backend=self._backend,
        )

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the body at `uri`; see `worker.fetch.Source`.

        Raises:
            Fault: url_invalid, url_blocked, dns_failed, connect_failed, tls_failed, http_4xx,
                http_5xx (with the server's Retry-After), redirect_limit, source_opted_out,
                encoding_unsupported, body_too_large, body_incomplete, fetch_timeout,
                worker_overloaded (no connection became free).
        """
        target = parse_url(uri, self._ports)
        with self._deadline.until(min(deadline, time.monotonic() + self._limits.total_s)):
            for _ in range(self._limits.max_redirects + 1):
                answer = self._get(target)
                if isinstance(answer, bytes):
                    return answer
                target = answer
        raise Fault(ErrorCode.REDIRECT_LIMIT, f"more than {self._limits.max_redirects}")

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()
        self._backend.close()

    def _get(self, target: Target) -> bytes | Target:
        """The body, or where a redirect leads."""
        request = httpcore2.Request(
            "GET",
            httpcore2.URL(
                scheme=target.scheme, host=target.host, port=target.port, target=target.path
            ),
            headers=[(b"Host", target.authority.encode("ascii")), *self._headers],
            extensions={
                "timeout": {
                    "pool": self._deadline.clip(None),
                    "connect": self._limits.connect_s,
                    "read": self._limits.idle_s,
                    "write": self._limits.idle_s,
                }
            },
        )
        with _mapped(_CODES):
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
            waits = header(b"retry-after") if code is ErrorCode.HTTP_5XX else []
            wait = (
                retry_after_s(waits[0], datetime.now(UTC), limits.max_retry_after_s)
                if waits
                else None
            )
            raise Fault(code, f"{place}: {response.status}", wait)
        if self._honour_opt_out and opted_out(header(b"x-robots-tag"), self._agent):
            raise Fault(ErrorCode.SOURCE_OPTED_OUT, f"{place}: X-Robots-Tag")
        encoding = ",".join(header(b"content-encoding")).strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Fault(ErrorCode.ENCODING_UNSUPPORTED, f"{place}: {encoding!r}")
        # h11 has refused lengths that are not numbers, or that disagree.
        check_length(next(map(int, header(b"content-length")), None), limits.max_bytes)
        with _mapped(_BODY_CODES):
            if encoding.endswith("gzip"):
                wire = _counted(response.iter_stream(), limits.max_bytes)
                return collect(gunzip(wire, limits.max_bytes), limits.max_bytes)
            return collect(response.iter_stream(), limits.max_bytes)


def _counted(chunks: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    """Pass `chunks` on while they hold no more than `max_bytes` together: output that stays
    small does not excuse endless input.
    """
    count = 0
    for chunk in chunks:
        count += len(chunk)
        check_length(count, max_bytes)
        yield chunk


@contextmanager
def _mapped(codes: dict[type[Exception], ErrorCode]) -> Iterator[None]:
    try:
        yield
    except tuple(codes) as exc:
        raise Fault(codes[type(exc)], f"{type(exc).__name__}: {exc}") from exc
