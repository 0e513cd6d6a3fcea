"""A time limit for calls that cannot be interrupted."""

import threading
import time
from functools import partial

import pytest

from worker.deadline import Deadline, TimedOut


def test_given_a_call_that_is_done_in_time_then_its_answer_or_its_error_comes_through() -> None:
    deadline = Deadline(5, max_hanging=1, too_many=lambda _: None)
    assert deadline.run(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        deadline.run(lambda: 1 / 0)
    with pytest.raises(TimeoutError, match="its own"):
        deadline.run(lambda: (_ for _ in ()).throw(TimeoutError("its own")))


def test_given_calls_that_hang_then_each_is_left_to_itself_and_too_many_are_told_of() -> None:
    told: list[str] = []
    gate = threading.Event()
    deadline = Deadline(0.02, max_hanging=3, too_many=told.append)
    for hanging in range(5):
        assert bool(told) == (hanging >= 3)
        with pytest.raises(TimedOut):
            deadline.run(lambda: gate.wait(10))
    assert len(told) == 1
    gate.set()


def test_given_calls_that_hang_and_end_after_all_then_they_count_no_longer() -> None:
    told: list[str] = []
    deadline = Deadline(0.01, max_hanging=2, too_many=told.append)
    for _ in range(6):
        with pytest.raises(TimedOut):
            deadline.run(lambda: time.sleep(0.03))
        until_s = time.monotonic() + 5
        while deadline._hanging and time.monotonic() < until_s:
            time.sleep(0.005)
    assert told == []


def test_given_many_that_hang_and_fewer_and_many_again_then_that_is_told_once() -> None:
    told: list[str] = []
    gates = [threading.Event() for _ in range(3)]
    deadline = Deadline(0.02, max_hanging=2, too_many=told.append)
    for gate in gates[:2]:
        with pytest.raises(TimedOut):
            deadline.run(partial(gate.wait, 10))
    gates[0].set()
    until_s = time.monotonic() + 5
    while deadline._hanging > 1 and time.monotonic() < until_s:
        time.sleep(0.005)
    with pytest.raises(TimedOut):
        deadline.run(partial(gates[2].wait, 10))
    assert len(told) == 1
    for gate in gates:
        gate.set()
