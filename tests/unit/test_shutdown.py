"""The end of the process: in order, at once, or because of a device that is of no more use."""

import signal
import threading
import time
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
        self.away = threading.Event()
        """Set: calls wait for `back`."""
        self.back = threading.Event()

    @property
    def at_the_end(self) -> list[str]:
        """What was said but for renewals, which come when they will."""
        return [what for what in self.said if what != "renew"]

    def renew(self) -> None:
        self.said.append("renew")
        self.renewed.set()
        if self.away.is_set():
            self.back.wait(10)

    def return_all(self) -> int:
        self.said.append("return")
        if self.away.is_set():
            self.back.wait(10)
        if self.failure:
            raise self.failure
        return 1


class World:
    """A shutdown whose process does not end but is told with which status it would have."""

    def __init__(
        self,
        timeout_s: float = 60,
        failure: Exception | None = None,
        renew_every_s: float = 0.01,
    ) -> None:
        self.held = Held(failure)
        self.status: int | None = None
        self.left = threading.Event()
        self.store_hangs = threading.Event()
        self.shutdown = Shutdown(
            self.held,
            self._uncount,
            timeout_s=timeout_s,
            renew_every_s=renew_every_s,
            leave=self._leave,
        )

    def _uncount(self) -> None:
        self.held.said.append("not counted")
        if self.store_hangs.is_set():
            self.held.back.wait(10)

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
    assert world.held.at_the_end == ["not counted", "return"]


def test_given_jobs_that_do_not_end_then_they_go_back_when_the_time_is_over() -> None:
    world = World(timeout_s=0.1)
    world.shutdown.begin()
    assert world.left.wait(5)
    assert world.status == 0
    assert world.held.at_the_end == ["not counted", "return"]
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


def test_given_renewals_that_are_rare_then_the_time_for_the_last_jobs_is_kept_all_the_same() -> (
    None
):
    world = World(timeout_s=0.5, renew_every_s=0.4)
    began_s = time.monotonic()
    world.shutdown.begin()
    assert world.left.wait(5)
    assert 0.5 <= time.monotonic() - began_s < 0.75


def test_given_a_broker_that_does_not_answer_a_second_signal_is_heard_at_once() -> None:
    world = World()
    world.held.away.set()
    world.shutdown.begin()
    assert world.held.renewed.wait(5)
    signal.raise_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + 1
    while "return" not in world.held.said and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert "return" in world.held.said
    world.held.back.set()
    assert world.left.wait(5)


def test_given_a_results_store_that_hangs_then_messages_go_back_nevertheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.shutdown.UNCOUNT_TIMEOUT_S", 0.05)
    world = World()
    world.store_hangs.set()
    world.shutdown.begin()
    signal.raise_signal(signal.SIGTERM)
    assert world.left.wait(5)
    assert world.held.at_the_end == ["not counted", "return"]
    world.held.back.set()


def test_given_an_end_under_way_then_whoever_gives_up_the_device_too_waits_for_it() -> None:
    """Were it to return, the futures of the device would fail, and their jobs be tried again."""
    world = World()
    world.held.away.set()
    first = threading.Thread(target=world.shutdown.abandon, args=("first",))
    first.start()
    deadline_s = time.monotonic() + 5
    while "return" not in world.held.said and time.monotonic() < deadline_s:
        time.sleep(0.01)
    second = threading.Thread(target=world.shutdown.abandon, args=("second",))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    world.held.back.set()
    second.join(5)
    assert not second.is_alive()
    assert world.left.is_set()
    first.join(5)


def test_given_no_room_for_another_thread_then_the_process_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    world = World()
    monkeypatch.setattr(threading.Thread, "start", full)
    with pytest.raises(RuntimeError):
        world.shutdown.abandon("it hangs")
    assert world.status == EX_SOFTWARE


def test_given_sigquit_first_then_everything_goes_back_at_once_uncounted() -> None:
    world = World()
    world.shutdown.heed_signals()
    signal.raise_signal(signal.SIGQUIT)
    assert world.left.wait(5)
    assert world.status == 0
    assert world.held.at_the_end == ["not counted", "return"]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_given_a_second_signal_while_celery_still_answers_the_first_then_it_is_heard(
    sig: signal.Signals,
) -> None:
    """Celery's handler speaks before it tells of the end."""
    world = World()

    def celery(_signum: int, _frame: FrameType | None) -> None:
        world.held.said.append("Warm shutdown")
        if world.held.said.count("Warm shutdown") == 1:
            signal.raise_signal(sig)

    signal.signal(signal.SIGTERM, celery)
    world.shutdown.heed_signals()
    signal.raise_signal(sig)
    assert world.left.wait(5)
    assert world.held.at_the_end == ["Warm shutdown", "not counted", "return"]


def test_given_an_end_that_is_announced_twice_then_the_last_jobs_still_have_their_time() -> None:
    """By a signal, and by the consumer that stops."""
    world = World()
    world.shutdown.begin()
    world.shutdown.begin()
    assert not world.left.wait(0.1)
