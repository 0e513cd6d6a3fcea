"""Events seen to, however long the broker is away: meanwhile they are held, and nothing is lost."""

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress

from producer.event_intake import Intake, Taken
from producer.event_rules import Event

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 20.0


def pause_s(tries: int, rng: random.Random) -> float:
    """How long to wait after so many tries in vain, from 1 on, in seconds: jittered, and doubled
    each time up to LONGEST_PAUSE_S.

    >>> [round(pause_s(n, random.Random(1)), 2) for n in (1, 2, 8, 1000)]
    [0.11, 0.23, 11.34, 11.34]
    """
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 30))
    return rng.uniform(0.5, 1) * longest


class PatientIntake:
    """An intake that is tried until it takes, or until it is time to stop.

    Args:
        stop: set when the listener is told to end.
    """

    def __init__(
        self, intake: Intake, stop: asyncio.Event, rng: random.Random | None = None
    ) -> None:
        self._intake = intake
        self._stop = stop
        self._rng = rng or random.Random()

    async def take(self, events: Sequence[Event]) -> Taken | None:
        """See `Intake.take`; None when it was told to stop first, and they are not seen to."""
        tries = 0
        while True:
            try:
                taken = await self._intake.take(events)
            except OSError as exc:  # BrokerUnavailable is one
                tries += 1
                if tries == 1:
                    log.warning("%s Trying again until it is back.", exc)
            else:
                if tries:
                    log.warning("Back after %d tries.", tries)
                return taken
            if await stopped_within(self._stop, pause_s(tries, self._rng)):
                return None


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for so long, or until it is time to stop; which of the two it was."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
