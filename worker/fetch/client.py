"""HTTP/1.1 to strangers: guarded addresses, a budget of time and bytes, one mapping of errors.

No cookies, no proxies from the environment, no redirects or decompression behind one's back.
"""

import logging
import re
import ssl
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import httpcore2

from worker.errors import ErrorCode, Fault
from worker.fetch.dial import Budget, GuardedBackend
from worker.fetch.netguard import Allow, check_address, ports_named
from worker.fetch.proxy import ProxiedBackend, parse_proxy
from worker.fetch.resolve import Lookup, Resolver, lookup
from worker.fetch.url import WEB_PORTS, Target

__all__ = [
    "BODY_CODES",
    "CODES",
    "MAX_HEAD_BYTES",
    "USER_AGENT",
    "GuardedClient",
    "HttpLimits",
    "mapped",
]

USER_AGENT = "captionq/0.1 (image captioning)"

MAX_HEAD_BYTES = 256 * 1024
"""Of a response, interim ones (1xx) included; h11 takes no more than 100 KiB for a single one."""

# Every exception of httpcore2; a test holds this against the package.
CODES: dict[type[Exception], ErrorCode] = {
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
BODY_CODES = CODES | {
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


class GuardedClient:
    """Connections to addresses that may be dialled, for any number of threads.

    Args:
        limits: what an exchange may cost.
        allow: exceptions to the address rules.
        proxy: `http://host:port` that all goes through; worker/fetch/proxy.py says what changes.
        ssl_context: trust; the system's by default.
        resolve: (host, port) -> addresses; a seam for tests.

    Attributes:
        budget: what the calling thread's exchange may still cost.
        ports: those a URL may name; None for every port.

    Raises:
        ValueError: for a proxy of another form.
    """

    def __init__(
        self,
        limits: HttpLimits,
        allow: Collection[Allow] = (),
        *,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Lookup = lookup,
    ) -> None:
        self._limits = limits
        self._proxied = proxy is not None
        self.ports = ports_named(limits.ports, allow)
        self.budget = budget = Budget()
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

    def request(
        self,
        method: str,
        target: Target,
        headers: Sequence[tuple[bytes, bytes]],
        content: bytes | None = None,
    ) -> httpcore2.Response:
        """The head of the answer; whoever asked closes it. Within `budget.until`.

        Raises:
            Fault: url_blocked, dns_failed, connect_failed, tls_failed, fetch_timeout,
                worker_overloaded (no connection became free).
        """
        whole = self._proxied and target.scheme == "http"
        request = httpcore2.Request(
            method,
            httpcore2.URL(
                scheme=target.scheme,
                host=target.host,
                port=target.port,
                target=target.url if whole else target.path,
            ),
            headers=[(b"Host", target.authority.encode("ascii")), *headers],
            content=content,
            extensions={
                "timeout": {
                    "pool": self.budget.clip(None),
                    "connect": self._limits.connect_s,
                    "read": self._limits.idle_s,
                    "write": self._limits.idle_s,
                }
            },
        )
        self.budget.grant(MAX_HEAD_BYTES, ErrorCode.CONNECT_FAILED)
        with mapped(CODES, target):
            return self._pool.handle_request(request)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


@contextmanager
def mapped(codes: dict[type[Exception], ErrorCode], target: Target) -> Iterator[None]:
    """Turn the errors of httpcore2 into the fetch's own. Raises: Fault."""
    try:
        yield
    except tuple(codes) as exc:
        # Messages on a protocol quote the peer after their first words.
        said = str(exc)
        if isinstance(exc, httpcore2.ProtocolError):
            said = re.split(r"[:'\"(]", said, maxsplit=1)[0]
        where = f"{target.host}:{target.port}"
        raise Fault(codes[type(exc)], f"{where}: {type(exc).__name__}: {said}") from exc
