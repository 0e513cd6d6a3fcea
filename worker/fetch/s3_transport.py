"""How botocore's requests travel: over sockets that end at the fetch's deadline.

botocore's own client knows a wait per socket call alone, so a service that drips its headers or
its body would hold a thread for hours. Its event `before-send` lets another send the request;
signing, retries, regions and errors stay botocore's. Proxies of the environment are not used.
"""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpcore2
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from worker.errors import ErrorCode, Fault
from worker.fetch.dial import Budget, GuardedBackend
from worker.fetch.resolve import Resolver

__all__ = ["S3Transport"]

MAX_HEAD_BYTES = 256 * 1024
"""Of a response, interim ones (1xx) included."""

MAX_ERROR_BYTES = 64 * 1024
"""Of an error's XML that are read."""

MAX_FRAMING = 2
"""Bytes on the wire for each that a body may have."""

CHUNK_BYTES = 64 * 1024


class S3Transport:
    """Sends the requests of one S3 client, from any number of threads.

    Args:
        connect_s, idle_s: seconds to connect, and the longest silence.
        max_bytes: of a body.
        max_connections: at a time.
        ssl_context: trust; the system's by default.
    """

    def __init__(
        self,
        *,
        connect_s: float,
        idle_s: float,
        max_bytes: int,
        max_connections: int,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._waits = {"connect": connect_s, "read": idle_s, "write": idle_s}
        self._max_wire_bytes = MAX_HEAD_BYTES + MAX_FRAMING * max_bytes
        self._budget = Budget()
        self._open = threading.local()
        # The operator named the service: it may lie on any network.
        backend = GuardedBackend(_anywhere, self._budget, Resolver())
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl_context or httpcore2.default_ssl_context(),
            max_connections=max_connections,
            keepalive_expiry=15,
            network_backend=backend,
        )

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Hold what the calling thread sends to `deadline`, a value of `time.monotonic()`, and
        give back its connection, however far botocore came.
        """
        with self._budget.until(deadline):
            try:
                yield
            finally:
                if (response := getattr(self._open, "response", None)) is not None:
                    self._open.response = None
                    response.close()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        """Answer botocore's `before-send`.

        Raises:
            BotoCoreError: as botocore's own client does.
            Fault: tls_failed, fetch_timeout when the deadline passed, worker_overloaded, and
                body_too_large for more framing than body.
        """
        url = urlsplit(request.url)
        default = {"http": 80, "https": 443}.get(url.scheme)
        # The signature is over this Host, as botocore takes it from the URL.
        host = url.netloc if url.port != default else url.netloc.rpartition(":")[0]
        headers = {"Host": host, "Accept-Encoding": "identity"} | dict(request.headers.items())
        headers.pop("Expect", None)  # what is written is small, and the signature is without it
        sent = httpcore2.Request(
            request.method,
            httpcore2.URL(
                scheme=url.scheme,
                host=url.hostname or "",
                port=url.port,
                target=(url.path or "/") + (f"?{url.query}" if url.query else ""),
            ),
            headers=[(_bytes(name), _bytes(value)) for name, value in headers.items()],
            content=_content(request.body),
            extensions={"timeout": self._waits | {"pool": self._budget.clip(None)}},
        )
        self._budget.grant(MAX_HEAD_BYTES, ErrorCode.S3_UNAVAILABLE)
        with _as_botocore(request.url, ConnectionClosedError):
            response = self._pool.handle_request(sent)
        self._open.response = response
        self._budget.grant(self._max_wire_bytes, ErrorCode.BODY_TOO_LARGE)
        answered: Any = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in response.headers]
        return AWSResponse(request.url, response.status, answered, _Body(request.url, response))


def _anywhere(_address: str, _port: int) -> None:
    """Every address passes."""


def _content(body: Any) -> bytes | None:
    """A request's body, which botocore has at its beginning, also before another try."""
    content: bytes | None = body.read() if hasattr(body, "read") else body
    return content


def _bytes(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


class _Body:
    """A response's body, as botocore reads it."""

    def __init__(self, url: str, response: httpcore2.Response) -> None:
        self._url = url
        self._response = response
        self._chunks = response.iter_stream()
        self._rest = b""

    def read(self, amt: int | None = None) -> bytes:
        """Some bytes, `amt` at most; none at the end. Everything when no `amt` is given."""
        if amt is None:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        while not self._rest:
            with _as_botocore(self._url, ResponseStreamingError):
                chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        piece, self._rest = self._rest[:amt], self._rest[amt:]
        return piece

    def stream(self) -> Iterator[bytes]:
        """What botocore reads whole: errors, and answers without a body. The start is enough."""
        left = MAX_ERROR_BYTES
        try:
            while left > 0 and (piece := self.read(left)):
                left -= len(piece)
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()


@contextmanager
def _as_botocore(url: str, broken: Callable[..., Exception]) -> Iterator[None]:
    """Raise what botocore's own client raises; `broken` for a peer that hangs up or is confused."""
    try:
        yield
    except httpcore2.ConnectTimeout as exc:
        raise ConnectTimeoutError(endpoint_url=url, error=exc) from exc
    except (httpcore2.ReadTimeout, httpcore2.WriteTimeout) as exc:
        raise ReadTimeoutError(endpoint_url=url, error=exc) from exc
    except httpcore2.ConnectError as exc:
        raise EndpointConnectionError(endpoint_url=url, error=exc) from exc
    except (httpcore2.PoolTimeout, httpcore2.ConnectionNotAvailable) as exc:
        raise Fault(ErrorCode.WORKER_OVERLOADED, "no connection to S3 became free") from exc
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as exc:
        raise broken(endpoint_url=url, error=type(exc).__name__) from exc
    except Fault as fault:
        if fault.code is not ErrorCode.DNS_FAILED:
            raise
        raise EndpointConnectionError(endpoint_url=url, error=fault) from fault
