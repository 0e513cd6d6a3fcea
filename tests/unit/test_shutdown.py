"""The end of the process: in order, at once, or because of a device that is of no more use."""

import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from worker.shutdown import EX_SOFTWARE, Shutdown


class Held:
    """Messages in flight: says what was done to them, in order."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.said: list[str] = []
        self.renewed = threading.Event()
        self.failure = failure

    def renew(self) -> None:
        self.said.append("renew")
        self.renewed.set()

    def return_all(self) -> int:
        self.said.append("return")
        if self.failure:
            raise self.failure
        return 1


class World:
    """A shutdown whose process does not end but is told with which status it would have."""

    def __init__(self, timeout_s: float = 60, failure: Exception | None = None) -> None:
        self.held = Held(failure)
        self.status: int | None = None
        self.left = threading.Event()
        self.shutdown = Shutdown(
            self.held,
            lambda: self.held.said.append("not counted"),
            timeout_s=timeout_s,
            renew_every_s=0.01,
            leave=self._leave,
        )

    def _leave(self, status: int) -> None:
        self.status = status
        self.left.set()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The test process gets its signal handlers back."""
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    before: list[Callable[[int, FrameType | None], Any] | int | None] = [
        signal.getsignal(sig) for sig in signals
    ]
    yield
    for sig, handler in zip(signals, before, strict=True):
        signal.signal(sig, handler)


def test_given_a_first_signal_then_leases_are_renewed_while_the_last_jobs_run() -> None:
    world = World()
    assert not world.held.renewed.wait(0.05), "before that the event loop does"
    world.shutdown.begin()
    assert world.held.renewed.wait(5)
    assert not world.left.is_set()
    assert set(world.held.said) == {"renew"}


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_given_a_second_signal_then_everything_goes_back_at_once_uncounted(
    second: signal.Signals,
) -> None:
    world = World()
    world.shutdown.begin()
    signal.raise_signal(second)
    assert world.left.wait(5)
    assert world.status == 0
    assert world.held.said[-2:] == ["not counted", "return"]


def test_given_jobs_that_do_not_end_then_they_go_back_when_the_time_is_over() -> None:
    world = World(timeout_s=0.1)
    world.shutdown.begin()
    assert world.left.wait(5)
    assert world.status == 0
    assert world.held.said[-2:] == ["not counted", "return"]
    assert world.held.said.count("return") == 1


def test_given_a_device_of_no_more_use_then_everything_goes_back_and_stays_counted() -> None:
    world = World()
    world.shutdown.abandon("it hangs")
    assert world.status == EX_SOFTWARE
    assert world.held.said == ["return"]


def test_given_several_reasons_to_end_then_messages_go_back_once() -> None:
    world = World()
    world.shutdown.begin()
    threads = [threading.Thread(target=world.shutdown.abandon, args=("x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    signal.raise_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(5)
    assert world.left.wait(5)
    assert world.held.said.count("return") == 1


def test_given_a_broker_that_is_away_then_the_process_ends_all_the_same() -> None:
    world = World(failure=ConnectionError("away"))
    world.shutdown.abandon("it hangs")
    assert world.status == EX_SOFTWARE
