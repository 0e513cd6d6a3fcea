"""A stream that is read ahead by a thread, so that reading, copying and waiting go on at once."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 8
POLL_S = 0.2
END_S = 1.0


class Feed(Generic[T]):
    """Reads `items` ahead, at most `depth` of them."""

    def __init__(self, items: Iterator[T], depth: int = DEPTH) -> None:
        self._items = items
        self._queue: queue.Queue[T | None] = queue.Queue(depth)
        self._fault: BaseException | None = None
        self._closed = threading.Event()
        self.over = False
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    def get(self, wait_s: float = 0.0) -> T | None:
        """The next item; None when there is none within `wait_s` seconds, or (`over`) any more.

        Raises:
            Exception: what reading raised, after all items before it.
        """
        if self.over:
            return None
        try:
            item = self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self.over = True
            if self._fault is not None:
                raise self._fault
        return item

    def close(self) -> None:
        """Read no more. A thread that hangs in a read is left behind."""
        self._closed.set()
        with suppress(queue.Empty):
            while True:  # the thread may wait for room
                self._queue.get_nowait()
        self._thread.join(END_S)

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as exc:  # noqa: BLE001 - raised again by get
            self._fault = exc
        self._put(None)

    def _put(self, item: T | None) -> bool:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=POLL_S)
                return True
        return False
