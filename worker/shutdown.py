"""How the process ends: in order, at once, or because its device is of no more use.

    SIGTERM         nothing more is taken; what runs is finished; what is reserved goes back
      ... again     everything goes back at once, as it does after `timeout_s`
    abandon         everything goes back at once; a supervisor starts anew

A planned end says nothing against the jobs it interrupts: their deliveries are not counted. The
end by `abandon` is: one of them may be the cause. What cannot be returned, because Redis is away,
comes back when its leases end.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

log = logging.getLogger(__name__)

EX_SOFTWARE = 70
"""Exit status (sysexits.h) of a process that gave up its device."""

RETURN_TIMEOUT_S = 5.0


class Held(Protocol):
    """The messages of this process; see `worker.leases.Leases`."""

    def renew(self) -> None:
        """Renew the leases of what is held; raises nothing."""

    def return_all(self) -> int:
        """Put everything that is held back; how much it was."""


class Shutdown:
    """Watches over the end of the process, from a thread of its own.

    Args:
        held: what goes back. While the last jobs run, the event loop no longer turns: the leases
            are renewed from here.
        return_running: undoes the count of the deliveries that are returned by a planned end.
        timeout_s: how long the last jobs may take.
        renew_every_s: how often leases are renewed meanwhile.
        leave: ends the process with a status.
    """

    def __init__(
        self,
        held: Held,
        return_running: Callable[[], None],
        *,
        timeout_s: float,
        renew_every_s: float,
        leave: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._held = held
        self._return_running = return_running
        self._timeout_s = timeout_s
        self._renew_every_s = renew_every_s
        self._leave = leave
        self._clock = clock
        self._begun = threading.Event()
        self._at_once = threading.Event()
        self._leaving = threading.Lock()
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()

    def begin(self) -> None:
        """The first signal has come. From the main thread, inside the handler of a signal.

        Celery's own answer to a second SIGINT or SIGQUIT returns messages that run on; here any
        second signal means the same.
        """
        self._begun.set()
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(sig, self._again)

    def abandon(self, reason: str) -> None:
        """Give up the device and all jobs at once. Does not return, unless `leave` does."""
        log.critical("%s; this process ends, and its jobs go back", reason)
        self._end(EX_SOFTWARE, self._held.return_all)

    def _again(self, _signum: int, _frame: FrameType | None) -> None:
        self._at_once.set()

    def _watch(self) -> None:
        self._begun.wait()
        deadline_s = self._clock() + self._timeout_s
        while not self._at_once.wait(min(self._renew_every_s, self._timeout_s)):
            if self._clock() >= deadline_s:
                log.warning("jobs still run after %g s: they go back", self._timeout_s)
                break
            self._held.renew()
        self._end(0, self._return_uncounted)

    def _return_uncounted(self) -> None:
        self._return_running()
        self._held.return_all()

    def _end(self, status: int, give_back: Callable[[], object]) -> None:
        if not self._leaving.acquire(blocking=False):
            return  # another thread is at it
        returning = threading.Thread(target=self._returned, args=(give_back,), daemon=True)
        returning.start()
        returning.join(RETURN_TIMEOUT_S)
        for handler in logging.getLogger().handlers:
            handler.flush()
        self._leave(status)

    def _returned(self, give_back: Callable[[], object]) -> None:
        try:
            give_back()
        except Exception as exc:  # noqa: BLE001 - the process ends in any case
            log.error("messages could not be returned; they come back by themselves: %s", exc)
