"""When a callback is tried again, if it is, and whose turn it is: the policy, as pure functions."""

import random
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import NamedTuple

from producer.errors import ErrorCode

WAITS_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""After the first try, the second, ...: the schedule of Standard Webhooks, 76 hours in all."""

JITTER = 0.1
"""How much of a wait is left to chance, either way."""

MAX_RETRY_AFTER_S = 86_400.0

QUICK_MS = 2_000
"""A receiver whose last try took less is quick."""

GONE = 410

FINAL = frozenset({ErrorCode.URL_INVALID, ErrorCode.URL_BLOCKED, ErrorCode.CALLBACK_SECRET_UNKNOWN})
"""Refused here, before anything is sent: it will not be otherwise another time."""


class Fate(StrEnum):
    """What becomes of a callback."""

    DUE = "due"
    DELIVERED = "delivered"
    DROPPED = "dropped"
    """Its receiver wants none, or its result is gone."""
    DEAD = "dead"
    """Given up; a dead letter is kept of it."""


class Pace(IntEnum):
    """How soon a host answered the last time."""

    QUICK = 0
    NEW = 1
    """It was not tried lately."""
    SLOW = 2


def slowest(under_way: Mapping[Pace, int], couriers: int) -> Pace:
    """Of which pace the host of the next try may be at most: so that a quick one need not wait for
    others, however many those are.

    Slow ones have half of the couriers, these and new ones all but one.
    """
    if under_way.get(Pace.SLOW, 0) + under_way.get(Pace.NEW, 0) >= max(1, couriers - 1):
        return Pace.QUICK
    return Pace.NEW if under_way.get(Pace.SLOW, 0) >= max(1, couriers // 2) else Pace.SLOW


class Outcome(NamedTuple):
    """What one try came to: the status that was answered, or the code of the fault."""

    status: int | None = None
    code: ErrorCode | None = None
    retry_after_s: float | None = None


class Step(NamedTuple):
    """What follows: when it is tried again, in seconds, or with which code it is given up."""

    fate: Fate
    wait_s: float | None = None
    code: ErrorCode | None = None


def decide(outcome: Outcome, tries: int, rng: random.Random, scale: float = 1.0) -> Step:
    """What follows the `tries`-th try (from 1).

    A receiver's Retry-After is a lower bound, up to a day. Redirects count as failures.

    Args:
        scale: of the waits; 1 but for tests.
    """
    if outcome.status is not None and 200 <= outcome.status < 300:
        return Step(Fate.DELIVERED)
    if outcome.status == GONE:
        return Step(Fate.DROPPED, code=ErrorCode.CALLBACK_GONE)
    if outcome.code in FINAL:
        return Step(Fate.DEAD, code=outcome.code)
    if tries > len(WAITS_S):
        return Step(Fate.DEAD, code=ErrorCode.CALLBACK_FAILED)
    wait_s = scale * WAITS_S[tries - 1] * rng.uniform(1 - JITTER, 1 + JITTER)
    asked_s = min(outcome.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
    return Step(Fate.DUE, max(wait_s, asked_s))
