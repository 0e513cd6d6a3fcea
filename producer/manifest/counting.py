"""How many references folders and patterns have, counted while the first are captioned."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress


class Counting:
    """A thread that counts items and tells their number, unless it is stopped before.

    Args:
        items: can be read by itself, whoever else reads them.
        tell: takes the number, in that thread.
    """

    def __init__(self, items: Iterable[object], tell: Callable[[int], None]) -> None:
        self._items = items
        self._tell = tell
        self._stopped = threading.Event()
        threading.Thread(target=self._count, name="counting", daemon=True).start()

    def stop(self) -> None:
        """Count no more."""
        self._stopped.set()

    def _count(self) -> None:
        total = 0
        with suppress(OSError, ValueError):  # whoever reads them in earnest says so
            for _ in self._items:
                total += 1
                if self._stopped.is_set():
                    return
            self._tell(total)
