"""A time limit for calls that cannot be interrupted."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

TICKS = 4
"""Parts that the time is waited for in."""


class TimedOut(Exception):  # noqa: N818 - it says what happened
    """A call took longer than it may."""


class Deadline:
    """Runs calls in threads of their own, and leaves those that hang to themselves.

    A thread cannot be killed, so one that hangs stays; `too_many` is called once when `max_hanging`
    do at the same time: the process is to end before it is full of them.
    """

    def __init__(
        self, timeout_s: float, *, max_hanging: int, too_many: Callable[[str], None]
    ) -> None:
        self._timeout_s = timeout_s
        self._max_hanging = max_hanging
        self._too_many = too_many
        self._lock = threading.Lock()
        self._hanging = 0
        self._told = False

    def run(self, call: Callable[[], T]) -> T:
        """Call, and wait for `timeout_s` seconds at most.

        Raises:
            TimedOut: it is not done by then.
            Exception: whatever the call raises.
        """
        answer: Future[T] = Future()
        left = threading.Event()
        thread = threading.Thread(target=self._call, args=(call, answer, left), daemon=True)
        thread.start()
        for _ in range(TICKS):  # so that a process that was stopped meanwhile gives it its time
            wait([answer], self._timeout_s / TICKS)
            if answer.done():
                return answer.result()
        raise self._left(answer, left)

    def _call(self, call: Callable[[], T], answer: "Future[T]", left: threading.Event) -> None:
        try:
            answer.set_result(call())
        except BaseException as exc:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(exc)
        with self._lock:
            if left.is_set():
                self._hanging -= 1

    def _left(self, answer: "Future[T]", left: threading.Event) -> TimedOut:
        with self._lock:
            if not answer.done():
                left.set()
                self._hanging += 1
            tell = not self._told and self._hanging >= self._max_hanging
            self._told = self._told or tell
        if tell:
            self._too_many(f"{self._max_hanging} calls hang for over {self._timeout_s:g} s")
        return TimedOut(f"not done after {self._timeout_s:g} s")
