"""Dialling for httpcore2: checked addresses, and a budget that nothing outlives.

The check happens on the address that is dialled and again on the peer, not on the URL, so a name
that changes its answer between check and use (DNS rebinding) gains nothing. TLS stays httpcore2's:
the server name and the certificate are those of the URL's host, whatever address was dialled.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpcore2

from worker.errors import ErrorCode, Fault
from worker.fetch.resolve import Resolver

__all__ = ["Budget", "Check", "GuardedBackend", "GuardedStream"]

MAX_ADDRESSES_TRIED = 2

Check = Callable[[str, int], None]
SocketOptions = Iterable[httpcore2.SOCKET_OPTION] | None


class Budget(threading.local):
    """What the calling thread's fetch may still cost, asked wherever a socket is touched.

    A pool's connection outlives the request that dialled it, and httpcore2 hands its stream no
    more than a wait per call: a server that sends one byte per wait would never be cut off, nor
    one that sends endless heads, or more framing than body.
    """

    _until = float("inf")  # a value of time.monotonic()
    _left_bytes = float("inf")
    _excess = ErrorCode.BODY_TOO_LARGE

    @contextmanager
    def until(self, at: float) -> Iterator[None]:
        """Hold the calling thread to `at`, a value of `time.monotonic()`."""
        self._until = at
        try:
            yield
        finally:
            self._until = self._left_bytes = float("inf")

    def clip(self, timeout: float | None) -> float | None:
        """`timeout` in seconds, shortened to what is left.

        Raises:
            Fault: fetch_timeout when nothing is left.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise Fault(ErrorCode.FETCH_TIMEOUT, "the deadline passed")
        if timeout is None:
            return None if left == float("inf") else left
        return min(timeout, left)

    def grant(self, max_bytes: int, excess: ErrorCode) -> None:
        """Let the calling thread read so many bytes from now on; more of them is `excess`."""
        self._left_bytes, self._excess = max_bytes, excess

    def spend(self, count: int) -> None:
        """Take note of `count` bytes that were read.

        Raises:
            Fault: the code that was granted with, when that is more than is left.
        """
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise Fault(self._excess, "more bytes came than were to be read")


class GuardedStream(httpcore2.NetworkStream):
    """A socket whose every wait ends at the deadline, and whose bytes are counted."""

    def __init__(self, stream: httpcore2.NetworkStream, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """At most `max_bytes`; none at the end."""
        data = self._stream.read(max_bytes, self._budget.clip(timeout))
        self._budget.spend(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of `buffer`."""
        self._stream.write(buffer, self._budget.clip(timeout))

    def close(self) -> None:
        """Close the socket, without a word in TLS."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """The same connection with TLS; the whole handshake within `timeout`.

        Raises:
            Fault: tls_failed.
        """
        try:
            stream = self._stream.start_tls(
                ssl_context, server_hostname, self._budget.clip(timeout)
            )
        except httpcore2.ConnectError as exc:
            # A peer that hangs up may be back later; one that speaks wrongly will go on so.
            cause = exc.__cause__
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
                raise Fault(ErrorCode.TLS_FAILED, f"{server_hostname}: {cause}") from exc
            raise
        except BaseException:
            self.close()
            raise
        return GuardedStream(stream, self._budget)

    def get_extra_info(self, info: str) -> Any:
        """What the socket says of itself."""
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore2.NetworkBackend):
    """Looks a host up once, checks every answer, dials a checked address.

    Args:
        check: raises Fault for an (address, port) that may not be dialled.
        budget: shared with the streams.
        resolver: what looks hosts up.
    """

    def __init__(self, check: Check, budget: Budget, resolver: Resolver) -> None:
        self._check = check
        self._budget = budget
        self._resolver = resolver
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore2.NetworkStream:
        """Connect to a checked address of `host`.

        Raises:
            Fault: url_blocked when any answer is forbidden, dns_failed, fetch_timeout.
            httpcore2.ConnectError, httpcore2.ConnectTimeout: when no address answers.
        """
        addresses = self.checked(host, port)
        stream = self.dial(addresses, port, timeout, local_address, socket_options)
        try:
            peer = stream.get_extra_info("server_addr")
            self._check(peer[0], peer[1])
        except OSError as exc:  # the peer hung up before it could be asked for
            stream.close()
            raise httpcore2.ConnectError(exc) from exc
        except BaseException:
            stream.close()
            raise
        return GuardedStream(stream, self._budget)

    def checked(self, host: str, port: int) -> list[str]:
        """The addresses of `host`, all of them allowed. Raises: Fault, as `connect_tcp`."""
        addresses = self._resolver.addresses(host, port, self._budget.clip(None))
        for address in addresses:
            self._check(address, port)
        return addresses

    def dial(
        self,
        addresses: Sequence[str],
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: SocketOptions,
    ) -> httpcore2.NetworkStream:
        """A connection to one of the first addresses. Raises: as `connect_tcp`."""
        *spare, last = addresses[:MAX_ADDRESSES_TRIED]
        for address in spare:
            try:
                return self._sockets.connect_tcp(
                    address, port, self._budget.clip(timeout), local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return self._sockets.connect_tcp(
            last, port, self._budget.clip(timeout), local_address, socket_options
        )
