"""How the process ends: in order, at once, or because its device is of no more use.

    SIGTERM         nothing more is taken; what runs is finished; what is reserved goes back
      ... again     everything goes back at once, as it does after `timeout_s`
    SIGQUIT         everything goes back at once
    abandon         everything goes back at once; a supervisor starts anew

A planned end says nothing against the jobs it interrupts: their deliveries are not counted. The
end by `abandon` is: one of them may be the cause. What cannot be returned, because Redis is away,
comes back when its leases end.
"""

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

log = logging.getLogger(__name__)

EX_SOFTWARE = 70
"""Exit status (sysexits.h) of a process that gave up its device."""

UNCOUNT_TIMEOUT_S = 2.0
RETURN_TIMEOUT_S = 5.0
FLUSH_TIMEOUT_S = 1.0
END_TIMEOUT_S = UNCOUNT_TIMEOUT_S + RETURN_TIMEOUT_S + FLUSH_TIMEOUT_S
"""Longest time between the decision to end at once and the end, whatever is away by then."""

Step = tuple[Callable[[], object], float]
"""What is done at the end, and how long it may take, in seconds."""


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
    ) -> None:
        self._held = held
        self._return_running = return_running
        self._timeout_s = timeout_s
        self._renew_every_s = renew_every_s
        self._leave = leave
        self._told_at_once: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.begun = False
        """Whether the process has been told to end, in whatever way."""
        self._leaving = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()

    def heed_signals(self) -> None:
        """Signals mean what the module says, from now on. From the main thread, once Celery has
        set its handlers: its own for SIGQUIT cancels what runs, which a pool of threads cannot,
        and its own for SIGTERM would swallow a second one that comes while it runs."""
        warm = signal.getsignal(signal.SIGTERM)

        def in_order(signum: int, frame: FrameType | None) -> None:
            self.begin()
            if callable(warm):
                warm(signum, frame)

        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, in_order)
        signal.signal(signal.SIGQUIT, self._at_once)

    def begin(self) -> None:
        """The end has begun. From the main thread, also inside the handler of a signal.

        Celery's own answer to a second SIGINT or SIGQUIT returns messages that run on; here any
        further signal means the same.
        """
        self.begun = True
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(sig, self._at_once)
        self._told_at_once.put(False)

    def abandon(self, reason: str) -> None:
        """Give up the device and all jobs at once. Does not return, unless `leave` does."""
        log.critical("%s; this process ends, and its jobs go back", reason)
        self._end(EX_SOFTWARE, (self._held.return_all, RETURN_TIMEOUT_S))

    def _at_once(self, _signum: int, _frame: FrameType | None) -> None:
        self.begun = True
        self._told_at_once.put(True)  # reentrant: one signal may interrupt another's handler

    def _watch(self) -> None:
        at_once = self._told_at_once.get()
        threading.Thread(target=self._renew, name="last leases", daemon=True).start()
        deadline_s = time.monotonic() + self._timeout_s
        while not at_once:
            try:
                at_once = self._told_at_once.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                log.warning("jobs still run after %g s: they go back", self._timeout_s)
                break
        # Two steps: a results store that hangs keeps no message from going back.
        uncount = (self._return_running, UNCOUNT_TIMEOUT_S)
        self._end(0, uncount, (self._held.return_all, RETURN_TIMEOUT_S))

    def _renew(self) -> None:
        while not self._over.wait(self._renew_every_s):
            self._held.renew()

    def _end(self, status: int, *steps: Step) -> None:
        with self._leaving:  # whoever comes second waits for the end as well
            if self._over.is_set():
                return
            self._over.set()
            try:
                for step, timeout_s in (*steps, (_flush, FLUSH_TIMEOUT_S)):
                    taken = threading.Thread(target=_take, args=(step,), daemon=True)
                    taken.start()
                    taken.join(timeout_s)
            finally:  # also when there is no room for a thread
                self._leave(status)


def _take(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as exc:  # noqa: BLE001 - the process ends in any case
        log.error("messages could not be returned; they come back by themselves: %s", exc)


def _flush() -> None:
    for handler in logging.getLogger().handlers:
        handler.flush()
