"""Dialling for httpcore2: checked addresses, and a deadline that nothing outlives.

The check happens on the address that is dialled and again on the peer, not on the URL, so a name
that changes its answer between check and use (DNS rebinding) gains nothing. TLS stays httpcore2's:
the server name and the certificate are those of the URL's host, whatever address was dialled.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpcore2

from worker.errors import ErrorCode, Fault

__all__ = ["Deadline", "GuardedBackend", "lookup"]

MAX_ADDRESSES_TRIED = 2
LOOKUP_THREADS = 16


def lookup(host: str, port: int) -> list[str]:
    """All addresses of `host`, in the order the system prefers (RFC 6724).

    Raises:
        OSError: as getaddrinfo does.
    """
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Deadline(threading.local):
    """The moment the calling thread's request must be over, read wherever a socket is touched.

    A pool's connection outlives the request that dialled it, and httpcore2 hands its stream no
    more than a wait per call; a server that sends one byte per wait would never be cut off.
    """

    _at = float("inf")

    @contextmanager
    def until(self, at: float) -> Iterator[None]:
        """Hold the calling thread to `at`, a value of `time.monotonic()`."""
        self._at = at
        try:
            yield
        finally:
            self._at = float("inf")

    def clip(self, timeout: float | None) -> float | None:
        """`timeout` in seconds, shortened to what is left.

        Raises:
            Fault: fetch_timeout when nothing is left.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise Fault(ErrorCode.FETCH_TIMEOUT, "the deadline passed")
        if timeout is None:
            return None if left == float("inf") else left
        return min(timeout, left)


class _GuardedStream(httpcore2.NetworkStream):
    """A socket whose every wait ends at the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.clip(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.clip(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            stream = self._stream.start_tls(
                ssl_context, server_hostname, self._deadline.clip(timeout)
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
        return _GuardedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore2.NetworkBackend):
    """Looks a host up once, checks every answer, dials a checked address.

    Args:
        check: raises Fault for an (address, port) that may not be dialled.
        deadline: shared with the streams.
        dns_s: seconds a lookup may take.
        resolve: the lookup; a seam for tests.
    """

    def __init__(
        self,
        check: Callable[[str, int], None],
        deadline: Deadline,
        dns_s: float,
        resolve: Callable[[str, int], list[str]] = lookup,
    ) -> None:
        self._check = check
        self._deadline = deadline
        self._dns_s = dns_s
        self._resolve = resolve
        self._sockets = httpcore2.SyncBackend()
        # getaddrinfo takes no timeout, so it runs where it can be left behind.
        self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="dns")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to a checked address of `host`.

        Raises:
            Fault: url_blocked when any answer is forbidden, dns_failed, fetch_timeout.
            httpcore2.ConnectError, httpcore2.ConnectTimeout: when no address answers.
        """
        addresses = self._addresses(host, port)
        for address in addresses:
            self._check(address, port)
        *spare, last = addresses[:MAX_ADDRESSES_TRIED]
        for address in spare:
            try:
                return self._dial(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return self._dial(last, port, timeout, local_address, socket_options)

    def close(self) -> None:
        """Take no more lookups."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def _addresses(self, host: str, port: int) -> list[str]:
        lookup = self._lookups.submit(self._resolve, host, port)
        try:
            addresses = lookup.result(self._deadline.clip(self._dns_s))
        except TimeoutError as exc:
            lookup.cancel()
            raise Fault(ErrorCode.DNS_FAILED, f"{host}: no answer in time") from exc
        except (OSError, UnicodeError) as exc:
            raise Fault(ErrorCode.DNS_FAILED, f"{host}: {exc}") from exc
        if not addresses:
            raise Fault(ErrorCode.DNS_FAILED, f"{host}: no address")
        return addresses

    def _dial(
        self,
        address: str,
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.NetworkStream:
        stream = self._sockets.connect_tcp(
            address, port, self._deadline.clip(timeout), local_address, socket_options
        )
        try:
            peer = stream.get_extra_info("server_addr")
            self._check(peer[0], peer[1])
        except OSError as exc:  # the peer hung up before it could be asked for
            stream.close()
            raise httpcore2.ConnectError(exc) from exc
        except BaseException:
            stream.close()
            raise
        return _GuardedStream(stream, self._deadline)
