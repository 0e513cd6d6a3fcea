"""Names to addresses, in bounded time, by the system's resolver."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import ip_address

from worker.errors import ErrorCode, Fault

__all__ = ["Lookup", "Resolver", "lookup"]

MAX_LOOKUPS = 64
"""Lookups at a time. One that hangs does so for some 30 s, and other names must not wait for it."""

Lookup = Callable[[str, int], list[str]]


def lookup(host: str, port: int) -> list[str]:
    """All addresses of `host`, in the order the system prefers (RFC 6724).

    Raises:
        OSError: as getaddrinfo does.
    """
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Resolver:
    """Looks names up, from any number of threads.

    Args:
        lookup: (host, port) -> addresses; a seam for tests.
        timeout_s: the longest a lookup is waited for.
    """

    def __init__(self, lookup: Lookup = lookup, timeout_s: float = 2) -> None:
        self._lookup = lookup
        self._timeout_s = timeout_s
        self._free = threading.BoundedSemaphore(MAX_LOOKUPS)

    def addresses(self, host: str, port: int, timeout_s: float | None = None) -> list[str]:
        """Every address of `host`, at least one; an address is its own.

        Args:
            timeout_s: a shorter limit than the resolver's own.

        Raises:
            Fault: dns_failed; worker_overloaded, when this process can start no thread.
        """
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass  # a name
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        until = time.monotonic() + timeout_s
        if not self._free.acquire(timeout=timeout_s):
            raise Fault(ErrorCode.DNS_FAILED, f"{host}: too many lookups hang")
        # getaddrinfo takes no timeout, so it runs where it can be left behind, also by a process
        # that ends: pools of concurrent.futures are waited for.
        answer: Future[list[str]] = Future()
        asking = threading.Thread(
            target=self._answer, args=(answer, host, port), name="dns", daemon=True
        )
        try:
            asking.start()
        except RuntimeError as exc:  # a container's limit of threads and processes
            self._free.release()
            raise Fault(ErrorCode.WORKER_OVERLOADED, f"{host} is not looked up: {exc}") from exc
        try:
            found = answer.result(max(0, until - time.monotonic()))
        except TimeoutError as exc:
            raise Fault(ErrorCode.DNS_FAILED, f"{host}: no answer in time") from exc
        except (OSError, UnicodeError) as exc:
            raise Fault(ErrorCode.DNS_FAILED, f"{host}: {exc}") from exc
        if not found:
            raise Fault(ErrorCode.DNS_FAILED, f"{host}: no address")
        return found

    def _answer(self, answer: "Future[list[str]]", host: str, port: int) -> None:
        try:
            answer.set_result(self._lookup(host, port))
        except BaseException as exc:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(exc)
        finally:
            self._free.release()
