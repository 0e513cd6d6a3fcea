"""Turns at hosts: how many at a time, and hosts that are left alone. The clock is the test's."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from worker.errors import ErrorCode, Fault
from worker.fetch.politeness import Host, Politeness

CAT, DOG = ("cat.example", 443), ("dog.example", 443)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def refusal(politeness: Politeness, host: Host, timeout_s: float = 0) -> Fault | None:
    """How a turn is refused; None when it is given."""
    try:
        with politeness.turn(host, timeout_s):
            return None
    except Fault as fault:
        return fault


@contextmanager
def held(politeness: Politeness, host: Host, count: int) -> Iterator[None]:
    with ExitStack() as turns:
        for _ in range(count):
            turns.enter_context(politeness.turn(host, 0))
        yield


def test_given_all_places_of_a_host_taken_when_asked_then_only_that_host_is_full() -> None:
    politeness = Politeness(max_per_host=2)
    with held(politeness, CAT, 2):
        fault = refusal(politeness, CAT)
        assert fault is not None
        assert fault.code is ErrorCode.WORKER_OVERLOADED
        assert refusal(politeness, DOG) is None
        assert refusal(politeness, ("cat.example", 80)) is None
    assert refusal(politeness, CAT) is None


def test_given_a_turn_that_fails_when_it_ends_then_its_place_is_free() -> None:
    politeness = Politeness(max_per_host=1)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), politeness.turn(CAT, 0):
            raise KeyboardInterrupt
    assert refusal(politeness, CAT) is None


def test_given_a_place_that_becomes_free_when_waited_for_then_it_is_taken_at_once() -> None:
    politeness = Politeness(max_per_host=1)
    with ThreadPoolExecutor(1) as threads:
        with held(politeness, CAT, 1):
            waiting = threads.submit(refusal, politeness, CAT, 5)
            time.sleep(0.05)
            assert not waiting.done()
        assert waiting.result(1) is None


def test_given_many_threads_when_they_take_turns_then_no_more_than_allowed_hold_one() -> None:
    politeness = Politeness(max_per_host=3)
    holding, most = 0, 0
    count = threading.Lock()

    def once(_: int) -> None:
        nonlocal holding, most
        with politeness.turn(CAT, 10):
            with count:
                holding += 1
                most = max(most, holding)
            time.sleep(0.001)
            with count:
                holding -= 1

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(once, range(200)))
    assert most == 3


def test_given_a_host_that_asked_when_it_is_its_time_again_then_it_is_asked_again() -> None:
    clock = Clock()
    politeness = Politeness(clock=clock)
    politeness.leave_alone(CAT, 30)
    clock.now_s += 10
    fault = refusal(politeness, CAT, timeout_s=60)
    assert fault is not None
    assert (fault.code, fault.retry_after_s) == (ErrorCode.HTTP_5XX, 20)
    assert refusal(politeness, DOG) is None
    clock.now_s += 20
    assert refusal(politeness, CAT) is None


def test_given_a_longer_and_a_shorter_wait_when_both_are_asked_for_then_the_longer_holds() -> None:
    politeness = Politeness(clock=Clock())
    politeness.leave_alone(CAT, 30)
    politeness.leave_alone(CAT, 5)
    fault = refusal(politeness, CAT)
    assert fault is not None
    assert fault.retry_after_s == 30


def test_given_fetches_that_wait_when_the_host_asks_to_be_left_alone_then_all_fail_at_once() -> (
    None
):
    politeness = Politeness(max_per_host=1)
    with ThreadPoolExecutor(4) as threads, held(politeness, CAT, 1):
        waiting = [threads.submit(refusal, politeness, CAT, 30) for _ in range(4)]
        time.sleep(0.05)
        politeness.leave_alone(CAT, 60)
        faults = [one.result(2) for one in waiting]
    assert [fault and fault.code for fault in faults] == [ErrorCode.HTTP_5XX] * 4


def test_given_endless_hosts_when_fetched_from_then_few_are_remembered() -> None:
    clock = Clock()
    politeness = Politeness(max_hosts=100, clock=clock)
    with held(politeness, CAT, 8):
        for number in range(1_000):
            clock.now_s += 0.01
            politeness.leave_alone((f"{number}.example", 443), 60)
            assert refusal(politeness, (f"quiet-{number}.example", 80)) is None
            assert len(politeness) <= 101
        last, first = (refusal(politeness, (f"{n}.example", 443)) for n in (999, 0))
        assert first is None  # the soonest to be free again is forgotten first
        assert last is not None
        assert refusal(politeness, CAT) is not None  # its places are still taken
    clock.now_s += 61
    for number in range(200):
        assert refusal(politeness, (f"{number}.example", 80)) is None
    assert len(politeness) <= 101


def test_given_a_host_forgotten_meanwhile_when_entered_then_its_places_are_counted() -> None:
    politeness = Politeness(max_per_host=1, max_hosts=1)
    find, interrupted = politeness._at, []

    def find_slowly(host: Host) -> object:
        found = find(host)
        if not interrupted:
            interrupted.append(host)
            assert refusal(politeness, DOG) is None  # there is room for one: the cat's is forgotten
        return found

    politeness._at = find_slowly  # type: ignore[assignment, method-assign]
    with held(politeness, CAT, 1):
        assert interrupted
        assert refusal(politeness, CAT) is not None


def test_given_hosts_that_come_and_go_when_many_threads_ask_then_the_limit_still_holds() -> None:
    politeness = Politeness(max_per_host=2, max_hosts=2)
    holding = [0] * 6
    count = threading.Lock()

    def once(number: int) -> None:
        which = number % 6
        with politeness.turn((f"{which}.example", 443), 10):
            with count:
                holding[which] += 1
                assert holding[which] <= 2
            time.sleep(0)
            with count:
                holding[which] -= 1

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(once, range(3_000)))
