"""How many pixels are decoded at the same time, by all decoders of a process together."""

import threading
import time
from collections import deque

__all__ = ["PixelBudget"]


class PixelBudget:
    """A sum that is lent out, in the order in which it was asked for.

    A large image waits until there is room, and small ones that come later wait behind it: they
    would keep it waiting for ever.

    Args:
        pixels: the sum.
    """

    def __init__(self, pixels: int) -> None:
        self._sum = self._left = pixels
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @property
    def left(self) -> int:
        """Pixels that nobody holds."""
        return self._left

    def take(self, pixels: int, deadline: float) -> bool:
        """Wait for `pixels` until `deadline` (of `time.monotonic()`); False when there were none
        by then. More than the sum counts as the sum."""
        wanted, turn = min(pixels, self._sum), object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or self._left < wanted:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        return False
                    self._changed.wait(left_s)
                self._left -= wanted
                return True
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def give_back(self, pixels: int) -> None:
        """Return what `take` lent for `pixels`."""
        with self._changed:
            self._left += min(pixels, self._sum)
            self._changed.notify_all()
