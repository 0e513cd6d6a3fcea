"""The batch size by itself: its decisions as tables, its search on a scripted device."""

import weakref

import pytest

from worker.blip.errors import OutOfMemory
from worker.blip.sizing import Bounds, Trial, choose, describe, find, next_batch

GB = 10**9
ROOM = Bounds(memory_bytes=10 * GB)


PATIENT = Bounds(10 * GB, batch_seconds=99.0)


def rising(*batches: int, per_image: int = GB // 10) -> list[Trial]:
    """Trials whose rate grows with the batch without end."""
    return [Trial(n, 100.0 * n, n * per_image) for n in batches]


@pytest.mark.parametrize(
    ("trials", "spent_s", "bounds", "expected"),
    [
        pytest.param([], 0.0, ROOM, 1, id="the first is one image"),
        pytest.param(rising(1), 1.0, ROOM, 2, id="then it doubles"),
        pytest.param(rising(1, 2, 4), 3.0, ROOM, 8, id="and doubles"),
        pytest.param(rising(1, 2), 0.0, Bounds(None), 4, id="with memory unknown"),
        pytest.param(rising(32, 64), 1.0, ROOM, 96, id="up to what fits, by eights"),
        pytest.param(rising(48, 96), 1.0, ROOM, None, id="a hair more is no try"),
        pytest.param(rising(1, per_image=9 * GB), 1.0, ROOM, None, id="twice one does not fit"),
        pytest.param(rising(128, 256, per_image=1), 1.0, ROOM, None, id="never above the most"),
        pytest.param(rising(1, 2, per_image=11 * GB), 1.0, ROOM, None, id="not even one fits"),
        pytest.param(
            [*rising(1, 2, 4, per_image=1), Trial(8, 0.0)], 1.0, ROOM, 6, id="out of memory: less"
        ),
        pytest.param(
            [*rising(1, 2, 4, per_image=1), Trial(8, 0.0), Trial(6, 500.0)],
            1.0,
            ROOM,
            None,
            id="7 after 6 is no try",
        ),
        pytest.param(
            [*rising(1, 2, 4, per_image=1), Trial(8, 900.0, 11 * GB)], 1.0, ROOM, 6, id="over"
        ),
        pytest.param([Trial(1, 1.0), Trial(2, 2.0)], 18.5, ROOM, None, id="no time left"),
        pytest.param([Trial(1, 0.1)], 10.0, ROOM, None, id="two images would take too long"),
        pytest.param([Trial(2, 1.0), Trial(4, 2.0)], 9.0, ROOM, 8, id="a small one may be slow"),
        pytest.param(
            [Trial(4, 5.0), Trial(8, 9.0)], 1.0, ROOM, None, id="a large one would block others"
        ),
        pytest.param([Trial(4, 5.0), Trial(8, 9.0)], 1.0, PATIENT, 16, id="who are patient"),
        pytest.param(
            [Trial(1, 3.0), Trial(2, 3.1), Trial(4, 3.15)], 1.0, ROOM, None, id="no more speed"
        ),
        pytest.param(
            [Trial(1, 3.0), Trial(2, 2.0), Trial(4, 3.5)], 1.0, ROOM, 8, id="one dip is no end"
        ),
    ],
)
def test_given_trials_the_next_batch_is_tried_or_none(
    trials: list[Trial], spent_s: float, bounds: Bounds, expected: int | None
) -> None:
    assert next_batch(trials, spent_s, bounds) == expected


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        pytest.param([Trial(1, 1.0)], 1, id="the only one"),
        pytest.param([Trial(1, 90), Trial(2, 96), Trial(4, 100), Trial(8, 99)], 2, id="95 %"),
        pytest.param(rising(1, 2, 4, 8), 8, id="still rising: the largest"),
        pytest.param([Trial(1, 1.0), Trial(2, 0.0)], 1, id="not what ran out of memory"),
        pytest.param([Trial(1, 1.0), Trial(2, 9.0, 11 * GB)], 1, id="nor what took too much"),
        pytest.param([Trial(4, 4), Trial(8, 0), Trial(6, 9)], 6, id="in any order"),
        pytest.param([Trial(1, 1.0, 11 * GB)], 1, id="one image, even if it is too much"),
    ],
)
def test_given_trials_the_smallest_near_the_best_is_chosen(
    trials: list[Trial], expected: int
) -> None:
    assert choose(trials, ROOM).batch == expected


class Device:
    """A clock and a memory that running a batch moves: rate n / (n + half_at) of `peak`."""

    def __init__(self, capacity: int = 10**6, half_at: float = 4.0, setup_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.capacity, self.half_at, self.setup_s = capacity, half_at, setup_s
        self.ran: list[int] = []
        self.alive: list[weakref.ref[object]] = []
        self.taken = self.released = 0

    def run(self, batch: int) -> None:
        assert not any(ref() for ref in self.alive), "the failed batch still holds its tensors"
        if batch not in self.ran:
            self.now_s += self.setup_s
        self.ran.append(batch)
        self.taken = batch * GB // 10
        tensors = Tensors()
        self.alive.append(weakref.ref(tensors))
        if batch > self.capacity:
            raise OutOfMemory
        self.now_s += (batch + self.half_at) / 100

    def reset(self) -> None:
        self.taken = 0

    def release(self) -> None:
        self.released += 1

    def taken_bytes(self) -> int:
        return self.taken


class Tensors:
    """Stands for what a batch holds while it runs."""


def searched(device: Device, bounds: Bounds = ROOM, least_runs: int = 1) -> list[Trial]:
    return find(device.run, device, bounds, least_runs=least_runs, clock=lambda: device.now_s)


def test_given_a_device_that_runs_out_of_memory_the_search_goes_on_with_less() -> None:
    device = Device(capacity=25)
    trials = searched(device, Bounds(None, batch_seconds=9))
    assert [trial.batch for trial in trials] == [1, 2, 4, 8, 16, 32, 24]
    assert trials[-2].images_per_s == 0
    assert choose(trials, Bounds(None)).batch == 24
    assert device.released == len(trials)


def test_given_little_memory_no_batch_is_run_that_should_not_fit() -> None:
    device = Device()
    trials = searched(device, Bounds(memory_bytes=GB))
    assert [trial.batch for trial in trials] == [1, 2, 4, 8, 10]
    assert trials[-1].taken_bytes == GB


def test_given_a_slow_device_the_search_ends_within_its_time() -> None:
    device = Device(half_at=700.0)
    searched(device, Bounds(None, seconds=20.0))
    assert 7 <= device.now_s <= 20 + 7


def test_given_a_first_run_that_sets_things_up_the_fastest_run_counts() -> None:
    device = Device(setup_s=5.0)
    assert searched(device, Bounds(None, seconds=60, max_batch=1), least_runs=2) == [
        Trial(1, pytest.approx(20.0), GB // 10)
    ]
    assert device.ran == [1, 1]


def test_given_no_memory_for_one_image_the_search_says_so() -> None:
    with pytest.raises(OutOfMemory, match="single image"):
        searched(Device(capacity=0))


def test_what_was_tried_is_told_in_one_line() -> None:
    trials = [Trial(1, 20.0, GB // 10), Trial(2, 33.3, GB // 5), Trial(4, 0.0)]
    assert describe(trials, trials[1], ROOM) == (
        "batch size 2: 33.3 images/s, 0.20 GB of 10.0 GB; tried 1: 20.0, 2: 33.3, 4: out of memory"
    )
    assert "of" not in describe(trials[:1], trials[0], Bounds(None)).partition(";")[0]
