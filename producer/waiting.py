"""Waiting for results by subscription: what is missing, and when to look again. No I/O.

A result is published once, and pub/sub keeps nothing: so a store subscribes first, then looks
up every job whose subscription is confirmed (at the start, and again whenever the connection was
made anew), then listens. A look at everything every few seconds catches what was still lost.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from producer.contract import JobResult
from producer.errors import StoreUnavailable
from producer.ledger import Ledger
from producer.store import still_missing

RECHECK_S = 5.0
RECONNECT_PAUSE_S = 0.2


class Waiting:
    """The state of one wait. `clock_s` is a monotonic clock in seconds."""

    def __init__(
        self,
        ledger: Ledger,
        job_ids: Iterable[str],
        timeout_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._missing = dict.fromkeys(job_ids)
        self._added: dict[str, None] = {}
        self._timeout_s = timeout_s
        self._clock_s = clock_s
        self._deadline_s = clock_s() + timeout_s
        self._recheck_at_s = clock_s() + RECHECK_S
        self._confirmed: dict[str, None] = {}
        self._arrived: list[JobResult] = []
        self._reached = False

    def __bool__(self) -> bool:
        """Whether any result is missing."""
        return bool(self._missing)

    def add(self, job_ids: Iterable[str]) -> None:
        """Wait for these too; `added` then has what to subscribe to."""
        new = dict.fromkeys(job_ids)
        self._missing |= new
        self._added |= new

    def added(self) -> list[str]:
        """What to subscribe to since the last call."""
        channels = [self._ledger.channel(j) for j in self._added if j in self._missing]
        self._added.clear()
        return channels

    def channels(self) -> list[str]:
        """What to subscribe to."""
        return self.channels_of(self._missing)

    def channels_of(self, job_ids: Iterable[str]) -> list[str]:
        """Where the results of these jobs are published."""
        return [self._ledger.channel(job_id) for job_id in job_ids]

    def patience_s(self) -> float:
        """How long to listen before the next step is due, in seconds."""
        if self._confirmed or self._arrived:
            return 0.0
        return max(0.0, min(self._deadline_s, self._recheck_at_s) - self._clock_s())

    def hear(self, message: dict[str, Any]) -> None:
        """Take what the subscription said: a confirmation or a result."""
        self._reached = True
        job_id = self._ledger.job_id(message["channel"])
        if message["type"] == "subscribe":
            self._confirmed[job_id] = None
        elif message["type"] == "message":
            self.found(JobResult.model_validate_json(message["data"]))

    def due(self) -> list[str]:
        """The jobs to look up now: the newly confirmed, or all when it is time for that."""
        now_s = self._clock_s()
        everything = now_s >= min(self._recheck_at_s, self._deadline_s)
        ids = [j for j in (self._missing if everything else self._confirmed) if j in self._missing]
        self._confirmed.clear()
        if everything:
            self._recheck_at_s = now_s + RECHECK_S
        return ids

    def found(self, result: JobResult | None) -> None:
        """Take a result, heard or looked up; each counts once."""
        if result is not None and result.job_id in self._missing:
            del self._missing[result.job_id]
            self._arrived.append(result)

    def arrived(self) -> list[JobResult]:
        """The results since the last call.

        Raises:
            TimeoutError: none came, some are missing and the time is over.
        """
        arrived, self._arrived = self._arrived, []
        if not arrived and self._missing and self._clock_s() >= self._deadline_s:
            raise still_missing(len(self._missing), self._timeout_s)
        return arrived

    def interrupted(self, exc: StoreUnavailable) -> float:
        """The store was lost. Returns how long to pause before reaching for it again, in seconds.

        Raises:
            StoreUnavailable: it was never reached.
            TimeoutError: the time is over.
        """
        if not self._reached:
            raise exc
        if self._clock_s() >= self._deadline_s:
            raise still_missing(len(self._missing), self._timeout_s) from exc
        return RECONNECT_PAUSE_S
