"""How fast one key may ask: a bucket of tokens. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowed:
    """What a bucket says of one request."""

    granted: bool
    remaining: int
    """Requests that would be granted now."""
    wait_s: float
    """Until one is granted, in seconds; 0 for at once."""


class Bucket:
    """Fills with `rate` tokens a second, up to a second's worth, and at least one.

    A request takes one while there is a whole one; what `spend` takes besides may leave a debt.
    `clock_s` is a monotonic clock in seconds.
    """

    def __init__(self, rate: float, clock_s: Callable[[], float]) -> None:
        self.rate = rate
        self.capacity = max(1.0, rate)
        self._clock_s = clock_s
        self._tokens = self.capacity
        self._at_s = clock_s()

    def ask(self) -> Allowed:
        """May one request go on?"""
        now_s = self._clock_s()
        self._tokens = min(self.capacity, self._tokens + (now_s - self._at_s) * self.rate)
        self._at_s = now_s
        granted = self._tokens >= 1
        if granted:
            self._tokens -= 1
        wait_s = 0.0 if self._tokens >= 1 else (1 - self._tokens) / self.rate
        return Allowed(granted, max(0, int(self._tokens)), wait_s)

    def spend(self, tokens: float) -> None:
        """Take these, whether they are there or not: later requests wait for them."""
        self._tokens -= tokens
