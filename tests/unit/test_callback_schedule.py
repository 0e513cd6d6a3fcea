"""What follows a try of a callback, and whose turn it is: tables."""

import random

import pytest

from producer.errors import ErrorCode
from worker.callbacks.schedule import WAITS_S, Fate, Outcome, Pace, Step, decide, slowest


class Middle(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.mark.parametrize(
    ("outcome", "tries", "step"),
    [
        (Outcome(200), 1, Step(Fate.DELIVERED)),
        (Outcome(204), 9, Step(Fate.DELIVERED)),
        (Outcome(299), 1, Step(Fate.DELIVERED)),
        (Outcome(410), 1, Step(Fate.DROPPED, code=ErrorCode.CALLBACK_GONE)),
        (Outcome(302), 1, Step(Fate.DUE, 5)),
        (Outcome(404), 1, Step(Fate.DUE, 5)),
        (Outcome(500), 2, Step(Fate.DUE, 300)),
        (Outcome(500), 3, Step(Fate.DUE, 1_800)),
        (Outcome(500), 4, Step(Fate.DUE, 7_200)),
        (Outcome(500), 5, Step(Fate.DUE, 18_000)),
        (Outcome(500), 6, Step(Fate.DUE, 36_000)),
        (Outcome(500), 7, Step(Fate.DUE, 50_400)),
        (Outcome(500), 8, Step(Fate.DUE, 72_000)),
        (Outcome(500), 9, Step(Fate.DUE, 86_400)),
        (Outcome(500), 10, Step(Fate.DEAD, code=ErrorCode.CALLBACK_FAILED)),
        (Outcome(code=ErrorCode.FETCH_TIMEOUT), 1, Step(Fate.DUE, 5)),
        (Outcome(code=ErrorCode.TLS_FAILED), 1, Step(Fate.DUE, 5)),
        (Outcome(code=ErrorCode.DNS_FAILED), 10, Step(Fate.DEAD, code=ErrorCode.CALLBACK_FAILED)),
        (Outcome(code=ErrorCode.URL_BLOCKED), 1, Step(Fate.DEAD, code=ErrorCode.URL_BLOCKED)),
        (Outcome(code=ErrorCode.URL_INVALID), 1, Step(Fate.DEAD, code=ErrorCode.URL_INVALID)),
        (
            Outcome(code=ErrorCode.CALLBACK_SECRET_UNKNOWN),
            1,
            Step(Fate.DEAD, code=ErrorCode.CALLBACK_SECRET_UNKNOWN),
        ),
        (Outcome(429, None, 60.0), 1, Step(Fate.DUE, 60)),
        (Outcome(503, None, 60.0), 2, Step(Fate.DUE, 300)),
        (Outcome(503, None, 1e9), 1, Step(Fate.DUE, 86_400)),
    ],
)
def test_what_follows_a_try(outcome: Outcome, tries: int, step: Step) -> None:
    assert decide(outcome, tries, Middle()) == step


def test_waits_are_those_of_the_specification_give_or_take_a_tenth() -> None:
    rng = random.Random(1)
    for tries, wait_s in enumerate(WAITS_S, start=1):
        found = [decide(Outcome(500), tries, rng).wait_s or 0 for _ in range(50)]
        assert 0.9 * wait_s <= min(found) < wait_s < max(found) <= 1.1 * wait_s
    assert sum(WAITS_S) == 75 * 3_600 + 35 * 60 + 5


def test_a_scale_shortens_waits_and_not_what_a_receiver_asks_for() -> None:
    assert decide(Outcome(500), 2, Middle(), 0.001).wait_s == pytest.approx(0.3)
    assert decide(Outcome(503, None, 2.0), 1, Middle(), 0.001).wait_s == 2


@pytest.mark.parametrize(
    ("slow", "new", "couriers", "pace"),
    [
        (0, 0, 4, Pace.SLOW),
        (1, 0, 4, Pace.SLOW),
        (2, 0, 4, Pace.NEW),
        (2, 1, 4, Pace.QUICK),
        (1, 2, 4, Pace.QUICK),
        (0, 3, 4, Pace.QUICK),
        (0, 0, 1, Pace.SLOW),
        (1, 0, 2, Pace.QUICK),
        (8, 0, 16, Pace.NEW),
    ],
)
def test_slow_hosts_have_half_of_the_couriers_and_with_new_ones_all_but_one(
    slow: int, new: int, couriers: int, pace: Pace
) -> None:
    assert slowest({Pace.SLOW: slow, Pace.NEW: new, Pace.QUICK: 9}, couriers) is pace
