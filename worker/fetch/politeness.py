"""Good manners towards hosts: few fetches at a time, and none while one asks to be left alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from heapq import nsmallest

from worker.errors import ErrorCode, Fault

__all__ = ["Politeness"]

Host = tuple[str, int]
"""A host as the URL names it, and its port."""


class _Manners:
    """What is known of one host. Guarded by `turn`, the host's own lock: no host waits for another.

    Attributes:
        busy: fetches that run.
        waiting: fetches that wait for one of those to end.
        alone_until: when the host may be asked again, by the clock.
        forgotten: no longer in the table: to be looked up again.
    """

    __slots__ = ("alone_until", "busy", "forgotten", "turn", "waiting")

    def __init__(self) -> None:
        self.turn = threading.Condition(threading.Lock())
        self.busy = 0
        self.waiting = 0
        self.alone_until = float("-inf")
        self.forgotten = False

    def idle(self, now: float) -> bool:
        return not self.busy and not self.waiting and self.alone_until <= now


class Politeness:
    """Whose turn it is at which host, for all threads of a process.

    Args:
        max_per_host: fetches at a time from one host.
        max_hosts: hosts remembered. Those that are fetched from count, however many; of those that
            asked to be left alone, the soonest to be free again are forgotten first.
        clock: seconds that only grow; a seam for tests.
    """

    def __init__(
        self,
        max_per_host: int = 8,
        max_hosts: int = 4_096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_per_host = max_per_host
        self._max_hosts = max_hosts
        self._clock = clock
        self._hosts: dict[Host, _Manners] = {}
        self._lock = threading.Lock()  # of changes to the table, for hosts that are new

    def __len__(self) -> int:
        return len(self._hosts)

    @contextmanager
    def turn(self, host: Host, timeout_s: float | None) -> Iterator[None]:
        """Hold one of the host's places.

        Raises:
            Fault: http_5xx with the seconds left, at once, while the host is to be left alone;
                worker_overloaded when no place became free within `timeout_s`.
        """
        manners = self._enter(host, timeout_s)
        try:
            yield
        finally:
            with manners.turn:
                manners.busy -= 1
                manners.turn.notify()

    def leave_alone(self, host: Host, wait_s: float) -> None:
        """Let nobody ask this host for so many seconds, nor wait for a place at it."""
        while True:
            manners = self._at(host)
            with manners.turn:
                if not manners.forgotten:
                    manners.alone_until = max(manners.alone_until, self._clock() + wait_s)
                    manners.turn.notify_all()
                    return

    def _enter(self, host: Host, timeout_s: float | None) -> _Manners:
        while True:
            manners = self._at(host)
            with manners.turn:
                if manners.forgotten:
                    continue
                manners.waiting += 1
                try:
                    came = manners.turn.wait_for(partial(self._may_go_on, manners), timeout_s)
                finally:
                    manners.waiting -= 1
                wait_s = manners.alone_until - self._clock()
                if wait_s > 0:
                    raise Fault(ErrorCode.HTTP_5XX, f"{host[0]}: is left alone", wait_s)
                if not came:
                    raise Fault(ErrorCode.WORKER_OVERLOADED, f"{host[0]}: no turn came in time")
                manners.busy += 1
                return manners

    def _may_go_on(self, manners: _Manners) -> bool:
        return manners.busy < self._max_per_host or manners.alone_until > self._clock()

    def _at(self, host: Host) -> _Manners:
        manners = self._hosts.get(host)
        if manners is not None:
            return manners
        with self._lock:
            if len(self._hosts) >= self._max_hosts:
                self._forget()
            return self._hosts.setdefault(host, _Manners())

    def _forget(self) -> None:
        """Make room: all that is idle goes, then a quarter of those that only are left alone."""
        now = self._clock()
        self._drop(list(self._hosts.items()), now)
        too_many = len(self._hosts) - self._max_hosts * 3 // 4
        if too_many > 0:
            soonest = nsmallest(too_many, self._hosts.items(), key=lambda e: e[1].alone_until)
            self._drop(soonest, float("inf"))

    def _drop(self, entries: list[tuple[Host, _Manners]], now: float) -> None:
        for host, manners in entries:
            with manners.turn:
                if manners.idle(now):
                    manners.forgotten = True
                    del self._hosts[host]
