"""Whether to try a failed job again, and when: the whole retry policy, as one pure function."""

import random

from producer.errors import TRANSIENT, ErrorCode

MAX_ATTEMPTS = 3
"""Tries a transient error gets, the first included."""

SINK_ATTEMPTS = 8
"""Tries to write a chunk's shard, two minutes in all: its images are done, and lose nothing."""

SECOND_CHANCE = frozenset({ErrorCode.DECODE_CRASHED, ErrorCode.INTERNAL_ERROR})
"""Permanent at heart, but the fault may have been ours: two tries."""

SCHEMA_ATTEMPTS = 10
"""Deliveries a job of a newer contract gets before it fails: time for an upgrade to reach it."""

BASE_S = 1.0
CAP_S = 60.0
SCHEMA_DELAY_S = 15.0


def delay_s(
    code: ErrorCode,
    attempt: int,
    rng: random.Random,
    retry_after_s: float | None = None,
) -> float | None:
    """Seconds until the next try after the `attempt`-th (from 1) failed, or None to give up.

    Exponential backoff with full jitter above a half (Brooker, "Exponential Backoff And Jitter",
    2015), capped; a source's own Retry-After is a lower bound, capped as well.
    """
    if code is ErrorCode.SCHEMA_UNSUPPORTED:
        return SCHEMA_DELAY_S if attempt < SCHEMA_ATTEMPTS else None
    tries = MAX_ATTEMPTS if code in TRANSIENT else 2 if code in SECOND_CHANCE else 1
    if attempt >= (SINK_ATTEMPTS if code is ErrorCode.SINK_UNAVAILABLE else tries):
        return None
    backoff_s = BASE_S * 2.0 ** (attempt - 1) * rng.uniform(0.5, 1.0)
    return min(CAP_S, max(backoff_s, retry_after_s or 0.0))
