"""How long a service that is away is waited for."""

import math
import time
from collections.abc import Callable

from producer.errors import BrokerUnavailable

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class Patience:
    """Patience with one service, which has to be there once: a wrong address is no outage.

    Args:
        limit_s: longest outage that is waited out, in seconds; math.inf for any.
        say: tells people of an outage, and of its end.
        reached: it has been there.
    """

    def __init__(
        self,
        limit_s: float = math.inf,
        say: Callable[[str], None] = lambda _: None,
        clock_s: Callable[[], float] = time.monotonic,
        reached: bool = False,
    ) -> None:
        self._limit_s = limit_s
        self._say = say
        self._clock_s = clock_s
        self._reached = reached
        self._since_s: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def failed(self, exc: BrokerUnavailable) -> float:
        """It is away. Returns how long to wait before the next try, in seconds.

        Raises:
            BrokerUnavailable: `exc`, when patience is over.
        """
        now_s = self._clock_s()
        if self._since_s is None:
            self._since_s = now_s
            if self._reached:
                self._say(f"{exc} Trying again until it is back.")
        if not self._reached or now_s - self._since_s >= self._limit_s:
            raise exc
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, self._pause_s * 2)
        return pause_s

    def well(self) -> None:
        """It answered."""
        if self._since_s is not None:
            self._say(f"Back after {self._clock_s() - self._since_s:.0f} s.")
        self._reached, self._since_s, self._pause_s = True, None, FIRST_PAUSE_S
