"""Whether a worker process does its work. A `ping` says no such thing: it is answered by a thread
that none of the work passes through."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Health", "Signs", "faults"]

HUB_SILENT_S = 30.0
"""Celery's event loop says that it turns every two seconds."""


class Signs(NamedTuple):
    """What can be seen of a process. Seconds; `depth` is None when the broker does not answer."""

    begun: bool
    ending: bool
    device_lives: bool
    hub_silent_s: float
    depth: int | None
    idle_s: float
    """Since anything ended here, or since it was seen first that messages wait."""


def faults(signs: Signs, stall_s: float, hub_silent_s: float = HUB_SILENT_S) -> list[str]:
    """What is wrong, a sentence each; nothing where the process does its work, or ends as told.

    A broker that is away is none of its faults, and a new process would not help: then the event
    loop waits for it.

    Args:
        stall_s: how long messages may wait while nothing ends; 0: however long.
    """
    if signs.ending:
        return []
    if not signs.begun:
        return ["It has not begun to take work."]
    found = []
    if not signs.device_lives:
        found.append("The device thread has ended.")
    if signs.depth is None:
        return found
    if signs.hub_silent_s > hub_silent_s:
        found.append(f"The event loop has not turned for {signs.hub_silent_s:.0f} s.")
    if stall_s and signs.depth and signs.idle_s > stall_s:
        found.append(
            f"{signs.depth} messages wait, and nothing has ended for {signs.idle_s:.0f} s."
        )
    return found


class Health:
    """Watches one process.

    Args:
        depth: messages in its queues; None when the broker does not answer.
        progress_s: when anything ended last, by the clock.
        device_lives: whether the device thread does.
        ending: whether the process was told to end.
    """

    def __init__(
        self,
        depth: Callable[[], int | None],
        progress_s: Callable[[], float],
        device_lives: Callable[[], bool],
        ending: Callable[[], bool],
        *,
        stall_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._depth, self._progress_s = depth, progress_s
        self._device_lives, self._ending = device_lives, ending
        self._stall_s, self._clock = stall_s, clock
        self._lock = threading.Lock()
        self._begun = False
        self._beat_s = clock()
        self._waiting_since_s: float | None = None

    def begin(self) -> None:
        """Work is taken from now on."""
        self._begun = True
        self.beat()

    def beat(self) -> None:
        """The event loop turns."""
        self._beat_s = self._clock()

    def hub_silent_s(self) -> float:
        """Since the event loop was heard of."""
        return max(0.0, self._clock() - self._beat_s)

    def faults(self) -> list[str]:
        """As `faults` says of this moment."""
        depth = self._depth()
        with self._lock:
            now_s = self._clock()
            if not depth:
                self._waiting_since_s = None
            elif self._waiting_since_s is None:
                self._waiting_since_s = now_s
            since_s = max(self._progress_s(), self._waiting_since_s or now_s)
        signs = Signs(
            self._begun,
            self._ending(),
            self._device_lives(),
            self.hub_silent_s(),
            depth,
            max(0.0, now_s - since_s),
        )
        return faults(signs, self._stall_s)
