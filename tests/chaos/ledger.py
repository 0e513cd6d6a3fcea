"""An independent ledger of what happens to jobs, in a Redis of its own that no fault touches.

Written by worker processes and by the driver, read by the driver. Moments are seconds of
CLOCK_MONOTONIC, which all processes of a machine share and no clock jump moves.
"""

import os
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import redis

EVENTS = "events"
CLOCKS = "clocks"
BLOCK = 5_000


class Kind(StrEnum):
    """What happened to a job at a worker process.

    A delivery is in a process' hands from TAKEN to LEFT, or to RETURNED when it goes back to its
    queue with nothing settled; from BEGUN to ENDED its image is worked on. FATAL says that the
    process is about to die by its job, as planned; READY that it takes jobs from now on.
    """

    TAKEN = "taken"
    BEGUN = "begun"
    ENDED = "ended"
    LEFT = "left"
    RETURNED = "returned"
    FATAL = "fatal"
    READY = "ready"


@dataclass(frozen=True)
class Event:
    """One entry. `attempt` is 0 where it is not known."""

    kind: Kind
    job_id: str
    attempt: int
    pid: int
    at_s: float


class Ledger:
    """Both ends of the ledger at `url`; safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self._last = "0"

    def note(self, kind: Kind, job_id: str, attempt: int = 0) -> None:
        """Write an event of this process; it is there when this returns."""
        fields: dict[Any, Any] = {
            "kind": kind.value,
            "job_id": job_id,
            "attempt": attempt,
            "pid": os.getpid(),
            "at_s": time.monotonic(),
        }
        self._redis.xadd(EVENTS, fields)

    def news(self) -> list[Event]:
        """The events since the last call, in the order they were written."""
        events: list[Event] = []
        while found := cast("Any", self._redis.xread({EVENTS: self._last}, count=BLOCK)):
            entries = found[EVENTS][0] if isinstance(found, dict) else found[0][1]
            self._last = entries[-1][0]
            events += [
                Event(
                    kind=Kind(fields["kind"]),
                    job_id=fields["job_id"],
                    attempt=int(fields["attempt"]),
                    pid=int(fields["pid"]),
                    at_s=float(fields["at_s"]),
                )
                for _, fields in entries
            ]
        return events

    def first(self, what: str) -> bool:
        """Whether nobody has asked this before."""
        return bool(self._redis.set(f"once:{what}", 1, nx=True))

    def set_clock(self, worker: str, ahead_s: float) -> None:
        """From now on a worker's wall clock is ahead (or behind) by so much."""
        self._redis.hset(CLOCKS, worker, str(ahead_s))

    def clock(self, worker: str) -> float:
        """How far a worker's wall clock is to be ahead, in seconds."""
        return float(cast("str | None", self._redis.hget(CLOCKS, worker)) or 0)

    def close(self) -> None:
        """Release the connections."""
        self._redis.close()
