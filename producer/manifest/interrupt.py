"""Ctrl-C and SIGTERM, at moments that suit: never between the parts of one step."""

import signal
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While its block lasts, these signals raise KeyboardInterrupt inside a `waiting` block, at
    once or as soon as one begins, and nowhere else. For the main thread."""

    def __init__(self) -> None:
        self.came = False
        self._waiting = False
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._note) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def waiting(self) -> "_Waiting":
        """A block that may be left at any moment: it waits, for Redis, a source or the time."""
        return _Waiting(self)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt


class _Waiting:
    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def __enter__(self) -> None:
        self._interrupt._waiting = True
        if self._interrupt.came:
            self._interrupt._waiting = False
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        self._interrupt._waiting = False
