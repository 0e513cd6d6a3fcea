"""The batcher: its policy as a table, its promises under threads."""

import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.queues import BULK, INTERACTIVE, Lane
from worker.batcher import Batcher, BatcherClosed, QueueFull
from worker.batching import BATCHES_IN_A_ROW, Take, Wait, Waiting, decide
from worker.lines import Done

A, B = "a", "b"
LANES: tuple[Lane, ...] = (INTERACTIVE, BULK)


@pytest.mark.parametrize(
    ("waiting", "now_s", "on_the_way", "expected"),
    [
        pytest.param({}, 0.0, 0, Wait(None), id="nothing waits: no timer"),
        pytest.param({}, 0.0, 9, Wait(None), id="nothing waits yet: no timer"),
        pytest.param({A: Waiting(1, 0.0)}, 0.0, 0, Take(A), id="nobody comes: no wait"),
        pytest.param({A: Waiting(1, 0.0)}, 0.25, 3, Wait(0.75), id="others come: rest of the wait"),
        pytest.param({A: Waiting(1, 0.0)}, 1.0, 3, Take(A), id="the oldest waited long enough"),
        pytest.param({A: Waiting(4, 0.0)}, 0.0, 3, Take(A), id="full"),
        pytest.param({A: Waiting(9, 0.0)}, 0.0, 3, Take(A), id="more than full"),
        pytest.param(
            {A: Waiting(1, 0.0), B: Waiting(4, 0.5)}, 0.6, 1, Take(B), id="a full key goes first"
        ),
        pytest.param(
            {A: Waiting(1, 0.0), B: Waiting(4, 0.5)}, 1.1, 1, Take(A), id="but not before one due"
        ),
        pytest.param(
            {B: Waiting(4, 0.5), A: Waiting(4, 0.2)}, 0.6, 1, Take(A), id="both full: the older"
        ),
        pytest.param(
            {B: Waiting(1, 0.5), A: Waiting(1, 0.2)}, 0.6, 0, Take(A), id="idle: the older"
        ),
    ],
)
def test_given_what_waits_the_policy_takes_or_waits(
    waiting: dict[str, Waiting], now_s: float, on_the_way: int, expected: Take[str] | Wait
) -> None:
    assert decide(waiting, now_s, on_the_way, max_batch=4, max_wait_s=1.0) == expected


class Device:
    """Doubles numbers; fails on poison, on too large batches, or for good."""

    def __init__(self, capacity: int = 99, poison_memory: bool = False) -> None:
        self.poison_memory = poison_memory
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.capacity = capacity

    def __call__(self, key: str, payloads: Sequence[int]) -> list[int]:
        self.gate.wait(10)
        self.batches.append(list(payloads))
        if len(payloads) > self.capacity:
            raise MemoryError
        if self.poison_memory and 17 in payloads:
            raise MemoryError
        if 13 in payloads:
            raise ValueError("poison")
        if 666 in payloads:
            raise DeviceGoneError
        if 7 in payloads:
            return []
        return [2 * payload for payload in payloads]


class DeviceGoneError(RuntimeError):
    pass


def value(future: "Future[Done]") -> object:
    try:
        return future.result(10).value
    except Exception as exc:
        return type(exc)


def test_given_items_while_the_device_is_busy_when_it_is_free_they_run_as_one_batch() -> None:
    device = Device()
    batcher = Batcher(device, max_batch=4, max_wait_s=5)
    device.gate.clear()
    first = batcher.submit(A, 1)
    while not first.running():
        pass
    rest = [batcher.submit(A, n) for n in range(2, 8) if n != 7]
    device.gate.set()
    assert [value(f) for f in [first, *rest]] == [2, 4, 6, 8, 10, 12]
    assert device.batches == [[1], [2, 3, 4, 5], [6]]
    assert rest[0].result().batch_size == 4
    assert batcher.close(5)


def test_given_an_admitted_item_the_batch_waits_for_it_and_no_longer() -> None:
    device = Device()
    batcher = Batcher(device, max_batch=4, max_wait_s=30)
    with batcher.admit() as admission:
        early = batcher.submit(A, 1)
        late = admission.submit(A, 2)
    assert [value(early), value(late)] == [2, 4]
    assert device.batches == [[1, 2]]
    with batcher.admit():
        waiting = batcher.submit(A, 3)
    assert value(waiting) == 6, "an admission given up ends the wait"
    batcher.close(5)


def test_given_a_poison_item_when_its_batch_fails_it_fails_alone() -> None:
    device = Device()
    batcher = Batcher(device, max_batch=8, max_wait_s=30)
    with batcher.admit() as last:
        futures = [batcher.submit(A, n) for n in (1, 2, 13, 3, 4)]
        futures.append(last.submit(A, 5))
    assert [value(f) for f in futures] == [2, 4, ValueError, 6, 8, 10]
    assert value(batcher.submit(A, 6)) == 12, "and the batcher lives on"
    batcher.close(5)


def test_given_too_little_memory_when_a_batch_fails_its_halves_are_run() -> None:
    device = Device(capacity=2)
    batcher = Batcher(device, max_batch=8, max_wait_s=30)
    with batcher.admit() as last:
        futures = [batcher.submit(A, n) for n in (1, 2, 3)] + [last.submit(A, 4)]
    assert [value(f) for f in futures] == [2, 4, 6, 8]
    assert device.batches == [[1, 2, 3, 4], [1, 2], [3, 4]]
    batcher.close(5)


def run_together(batcher: Batcher[str], numbers: Sequence[int]) -> list[object]:
    """Submit all as one batch, wait for them."""
    with batcher.admit() as last:
        futures = [batcher.submit(A, n) for n in numbers[:-1]]
        futures.append(last.submit(A, numbers[-1]))
    return [value(future) for future in futures]


def test_given_a_batch_that_was_too_large_those_that_follow_are_smaller_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = Device(capacity=3)
    batcher = Batcher(device, max_batch=8, max_wait_s=30)
    for _ in range(2):
        assert run_together(batcher, [1, 2, 3, 4, 5, 6]) == [2, 4, 6, 8, 10, 12]
    halves = [[1, 2, 3], [4, 5, 6]]
    assert device.batches == [[1, 2, 3, 4, 5, 6], *halves, *halves], "nobody pays twice"
    assert batcher.max_batch == 3
    assert caplog.messages == ["out of memory with 6 images; from now on at most 3"]
    batcher.close(5)


def test_given_few_heavy_items_that_were_too_large_then_later_batches_weigh_what_fitted() -> None:
    device = Device(capacity=1)
    batcher: Batcher[str] = Batcher(device, max_batch=8, max_wait_s=30, weigh=lambda _: 4)
    assert run_together(batcher, [1, 2]) == [2, 4]
    assert device.batches == [[1, 2], [1], [2]]
    assert batcher.max_batch == 4
    batcher.close(5)


def test_given_one_item_that_fits_nowhere_the_batches_stay_as_large_as_they_were() -> None:
    device = Device(poison_memory=True)
    batcher = Batcher(device, max_batch=8, max_wait_s=30)
    assert run_together(batcher, [1, 2, 17, 3]) == [2, 4, MemoryError, 6]
    assert batcher.max_batch == 8
    batcher.close(5)


def test_given_poison_that_is_no_lack_of_memory_the_batches_stay_as_large_as_they_were() -> None:
    batcher = Batcher(Device(), max_batch=8, max_wait_s=30)
    assert run_together(batcher, [1, 2, 13, 3]) == [2, 4, ValueError, 6]
    assert batcher.max_batch == 8
    batcher.close(5)


def test_given_too_little_memory_a_failed_batch_frees_its_tensors_before_its_halves_run() -> None:
    class Tensor:
        pass

    held: list[weakref.ref[Tensor]] = []

    def run(key: str, payloads: Sequence[int]) -> list[int]:
        tensor = Tensor()
        assert [ref for ref in held if ref() is not None] == []
        held.append(weakref.ref(tensor))
        if len(payloads) > 1:
            raise MemoryError
        return list(payloads)

    batcher = Batcher(run, max_batch=4, max_wait_s=30)
    assert run_together(batcher, [1, 2, 3, 4]) == [1, 2, 3, 4]
    batcher.close(5)


def test_given_a_run_that_returns_too_few_results_its_items_fail() -> None:
    batcher = Batcher(Device(), max_batch=8, max_wait_s=0)
    assert value(batcher.submit(A, 7)) is RuntimeError
    batcher.close(5)


def test_given_a_lost_device_every_future_fails_and_the_process_is_told() -> None:
    device, told = Device(), []
    ended = threading.Event()
    batcher = Batcher(
        device,
        max_batch=2,
        max_wait_s=30,
        fatal=(DeviceGoneError,),
        on_fatal=lambda exc: (told.append(exc), ended.set()),
    )
    device.gate.clear()
    futures = [batcher.submit(A, 666)]
    while not futures[0].running():
        pass
    futures += [batcher.submit(A, 1), batcher.submit(B, 2), batcher.submit(A, 3, BULK)]
    device.gate.set()
    assert [value(f) for f in futures] == [DeviceGoneError] * 4
    assert ended.wait(5)
    assert len(told) == 1
    with pytest.raises(BatcherClosed):
        batcher.submit(A, 4)
    assert batcher.close(5)


def test_given_a_lost_device_then_it_is_told_of_before_any_job_fails() -> None:
    """In a worker that is the moment when jobs go back to their queues and the process ends."""
    states: list[bool] = []
    device = Device()
    batcher: Batcher[str] = Batcher(
        device,
        max_batch=4,
        max_wait_s=0,
        fatal=(DeviceGoneError,),
        on_fatal=lambda _: states.append(future.done()),
    )
    device.gate.clear()
    future = batcher.submit(A, 666)
    device.gate.set()
    assert value(future) is DeviceGoneError
    assert states == [False]


def test_given_a_lost_device_of_which_nobody_can_be_told_then_every_future_fails_nevertheless() -> (
    None
):
    def cannot(_: BaseException) -> None:
        raise RuntimeError("can't start new thread")

    batcher: Batcher[str] = Batcher(
        Device(), max_batch=4, max_wait_s=30, fatal=(DeviceGoneError,), on_fatal=cannot
    )
    assert run_together(batcher, [1, 666, 2]) == [DeviceGoneError] * 3
    assert batcher.close(5)
    with pytest.raises(BatcherClosed):
        batcher.submit(A, 1)


def test_given_memory_short_again_and_again_and_poison_among_it_then_each_has_its_own_end() -> None:
    device = Device(capacity=1)
    batcher: Batcher[str] = Batcher(device, max_batch=8, max_wait_s=30)
    assert run_together(batcher, [1, 13, 2, 3]) == [2, ValueError, 4, 6]
    assert [len(batch) for batch in device.batches] == [4, 2, 1, 1, 2, 1, 1]
    assert batcher.max_batch == 1


def test_given_a_batch_that_hangs_then_that_is_told_once_and_many_short_ones_are_not() -> None:
    told: list[str] = []
    told_of = threading.Event()
    device = Device()
    batcher: Batcher[str] = Batcher(
        device,
        max_batch=1,
        max_wait_s=0,
        batch_timeout_s=0.4,
        on_hang=lambda why: (told.append(why), told_of.set()),
    )
    until_s = time.monotonic() + 1
    while time.monotonic() < until_s:
        assert value(batcher.submit(A, 1)) == 2
        time.sleep(0.01)
    assert not told
    device.gate.clear()
    batcher.submit(A, 1)
    assert told_of.wait(5)
    device.gate.set()
    assert batcher.close(5)
    assert told == ["the device has been at one batch for 0.4 s"]


def test_given_a_long_batch_of_short_parts_then_it_does_not_hang_until_a_part_does() -> None:
    told = threading.Event()
    hang = threading.Event()

    def run(_: str, items: Sequence[int]) -> Sequence[int]:
        for _part in range(8):
            time.sleep(0.1)
            batcher.alive()
        assert items[0] != 2 or hang.wait(10)
        return items

    batcher: Batcher[str] = Batcher(
        run, max_batch=1, max_wait_s=0, batch_timeout_s=0.4, on_hang=lambda _: told.set()
    )
    batcher.alive()  # of no batch
    assert value(batcher.submit(A, 1)) == 1
    assert not told.is_set()
    batcher.submit(A, 2)
    assert told.wait(5)
    hang.set()
    assert batcher.close(5)


def test_given_a_process_that_was_stopped_during_a_batch_then_that_does_not_hang() -> None:
    """SIGSTOP for longer than a batch may take, in a process of its own."""
    program = """
import os, sys, threading, time
from worker.batcher import Batcher
gate = threading.Event()
batcher = Batcher(lambda _, items: gate.wait(9) and items, max_batch=1, max_wait_s=0,
                  batch_timeout_s=0.8, on_hang=lambda why: os._exit(3))
future = batcher.submit("a", 1)
while not future.running(): pass
print("stop me", flush=True)
sys.stdin.readline()
gate.set()
print(future.result(5).value, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "stop me\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"
    assert process.returncode == 0


def test_given_a_cancelled_item_the_device_never_sees_it() -> None:
    device = Device()
    batcher = Batcher(device, max_batch=4, max_wait_s=30)
    with batcher.admit() as last:
        gone, kept = batcher.submit(A, 1), batcher.submit(A, 2)
        assert gone.cancel()
        last.submit(A, 3)
        assert value(kept) == 4
    assert device.batches == [[2, 3]]
    with batcher.admit() as last:
        alone = last.submit(B, 9)
        alone.cancel()
    assert value(batcher.submit(A, 4)) == 8, "a batch of nothing but cancelled items is skipped"
    batcher.close(5)


def test_given_a_full_queue_more_is_refused() -> None:
    device = Device()
    device.gate.clear()
    batcher = Batcher(device, max_batch=1, max_wait_s=0, max_queue=2)
    first = batcher.submit(A, 1)
    while not first.running():
        pass
    queued = [batcher.submit(A, 2), batcher.submit(A, 3)]
    with pytest.raises(QueueFull):
        batcher.submit(A, 4)
    device.gate.set()
    assert [value(f) for f in queued] == [4, 6]
    batcher.close(5)


def test_given_waiting_items_when_closed_they_are_run_first() -> None:
    device = Device()
    batcher = Batcher(device, max_batch=2, max_wait_s=30)
    admission = batcher.admit()
    futures = [batcher.submit(A, n) for n in (1, 2, 3)]
    assert batcher.close(5), "what is still on its way is not waited for"
    assert [value(f) for f in futures] == [2, 4, 6]
    with pytest.raises(BatcherClosed):
        admission.submit(A, 4)


@settings(deadline=None, max_examples=40)
@given(
    items=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.sampled_from(LANES)), max_size=60
    ),
    max_batch=st.integers(1, 9),
    capacity=st.integers(1, 9),
)
def test_given_any_items_from_many_threads_every_future_resolves_rightly(
    items: list[tuple[str, int, Lane]], max_batch: int, capacity: int
) -> None:
    device = Device(capacity)
    batcher = Batcher(device, max_batch=max_batch, max_wait_s=0.001)
    futures: list[Future[Done] | None] = [None] * len(items)

    def submit(start: int) -> None:
        for index in range(start, len(items), 3):
            futures[index] = batcher.submit(*items[index])

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert batcher.close(10)
    expected = {13: ValueError, 7: RuntimeError}
    assert [value(f) for f in futures if f] == [expected.get(n, 2 * n) for _, n, _ in items]
    assert all(len(batch) <= max_batch for batch in device.batches)


def test_given_an_admission_of_several_items_when_nobody_else_comes_then_they_are_one_batch() -> (
    None
):
    device = Device()
    batcher: Batcher[str] = Batcher(device, max_batch=8, max_wait_s=30)
    with batcher.admit() as admission:
        futures = admission.submit_all(A, [1, 2, 3])
    assert [future.result(5).value for future in futures] == [2, 4, 6]
    assert device.batches == [[1, 2, 3]]
    with pytest.raises(RuntimeError, match="used once"):
        admission.submit(A, 4)
    assert batcher.close(5)


def test_given_room_for_some_items_of_an_admission_alone_then_none_is_taken() -> None:
    device = Device()
    device.gate.clear()
    batcher: Batcher[str] = Batcher(device, max_batch=1, max_wait_s=0, max_queue=3)
    first = batcher.submit(A, 1)
    while not first.running():
        threading.Event().wait(0.001)
    batcher.submit(A, 2)
    with pytest.raises(QueueFull), batcher.admit() as admission:
        admission.submit_all(A, [3, 4, 5])
    with batcher.admit() as admission:
        admission.submit_all(A, [6, 7])
    device.gate.set()
    assert batcher.close(5)
    assert device.batches == [[1], [2], [6], [7]]


def test_given_a_full_queue_then_room_is_waited_for_and_kept_until_its_items_come() -> None:
    device = Device()
    batcher: Batcher[str] = Batcher(device, max_batch=2, max_wait_s=0, max_queue=2)
    blocked(device, batcher)
    queued = [batcher.submit(A, n) for n in (1, 2)]
    with batcher.admit() as admission, ThreadPoolExecutor(1) as thread:
        with pytest.raises(QueueFull):
            admission.reserve(2, timeout_s=0.05)
        waiting = thread.submit(admission.reserve, 2, timeout_s=5)
        time.sleep(0.02)
        assert not waiting.done()
        device.gate.set()
        waiting.result(5)
        with pytest.raises(QueueFull):
            batcher.submit(A, 9)
        late = admission.submit_all(A, [3, 4])
    assert [value(f) for f in [*queued, *late]] == [2, 4, 6, 8]
    with batcher.admit() as admission:
        admission.reserve(2, timeout_s=0)
    assert value(batcher.submit(A, 5)) == 10, "what was kept and given up is room again"
    assert batcher.close(5)


def test_given_room_that_is_waited_for_when_closed_then_the_wait_ends() -> None:
    device = Device()
    batcher: Batcher[str] = Batcher(device, max_batch=1, max_wait_s=0, max_queue=1)
    blocked(device, batcher)
    batcher.submit(A, 1)
    with batcher.admit() as admission, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(admission.reserve, 1, timeout_s=5)
        assert not batcher.close(0)
        assert isinstance(waiting.exception(1), BatcherClosed)
        device.gate.set()
    assert batcher.close(5)


def blocked(device: Device, batcher: Batcher[str]) -> "Future[Done]":
    """A batch that runs until the device's gate is opened."""
    device.gate.clear()
    first = batcher.submit(A, 0)
    while not first.running():
        threading.Event().wait(0.001)
    return first


def test_given_bulk_that_waits_then_interactive_overtakes_it_and_bulk_fills_what_is_left() -> None:
    device = Device()
    batcher: Batcher[str] = Batcher(device, max_batch=4, max_wait_s=5)
    blocked(device, batcher)
    bulk = [batcher.submit(A, n, BULK) for n in range(1, 6)]
    other = batcher.submit(B, 8)
    quick = [batcher.submit(A, n) for n in (11, 12)]
    device.gate.set()
    assert [value(f) for f in [*bulk, other, *quick]] == [2, 4, 6, 8, 10, 16, 22, 24]
    assert device.batches == [[0], [8], [11, 12, 1, 2], [3, 4, 5]]
    assert batcher.close(5)


def test_given_bulk_on_its_way_then_an_interactive_item_does_not_wait_for_it() -> None:
    batcher: Batcher[str] = Batcher(Device(), max_batch=4, max_wait_s=30)
    with batcher.admit(BULK) as admission:
        assert value(batcher.submit(A, 1)) == 2
        late = admission.submit(A, 2)
    assert value(late) == 4
    with batcher.admit():
        waiting = batcher.submit(A, 3, BULK)
        time.sleep(0.02)
        assert not waiting.done(), "bulk does wait for interactive items"
    assert value(waiting) == 6
    assert batcher.close(5)


def test_given_a_lane_that_is_full_then_the_other_is_not() -> None:
    device = Device()
    batcher: Batcher[str] = Batcher(device, max_batch=1, max_wait_s=0, max_queue=2)
    blocked(device, batcher)
    with batcher.admit(BULK) as admission:
        bulk = admission.submit_all(A, [1, 2])
    with pytest.raises(QueueFull):
        batcher.submit(A, 3, BULK)
    quick = batcher.submit(A, 4)
    device.gate.set()
    assert [value(f) for f in [*bulk, quick]] == [2, 4, 8]
    assert batcher.close(5)
    assert device.batches == [[0], [4], [1], [2]]


def test_given_bulk_that_waits_when_closed_then_it_is_run_first() -> None:
    device = Device()
    batcher: Batcher[str] = Batcher(device, max_batch=2, max_wait_s=30)
    blocked(device, batcher)
    futures = [batcher.submit(A, n, BULK) for n in (1, 2, 3)]
    device.gate.set()
    assert batcher.close(5)
    assert [value(f) for f in futures] == [2, 4, 6]


def test_given_interactive_that_saturates_then_bulk_runs_every_ninth_batch() -> None:
    batcher: Batcher[str]
    batches: list[int] = []
    begin = threading.Event()

    def run(key: str, payloads: Sequence[int]) -> Sequence[int]:
        begin.wait(10)
        batches.append(payloads[0])
        if len(batches) < 40:  # so that one always waits
            batcher.submit(A, 1)
        return payloads

    batcher = Batcher(run, max_batch=1, max_wait_s=0)
    batcher.submit(A, 1)
    for _ in range(3):
        batcher.submit(B, 2, BULK)
    begin.set()
    deadline_s = time.monotonic() + 10
    while len(batches) < 40 and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert batcher.close(5)
    turns = [place for place, lane in enumerate(batches) if lane == 2]
    assert [after - before for before, after in pairwise(turns)] == [BATCHES_IN_A_ROW + 1] * 2


def test_given_bulk_that_saturates_the_device_then_interactive_p95_is_within_three_batches() -> (
    None
):
    """In real time, with a device that takes 50 ms for a batch, however many are in it."""
    batch_s, over = 0.05, threading.Event()

    def run(key: str, payloads: Sequence[int]) -> Sequence[int]:
        time.sleep(batch_s)
        return payloads

    batcher: Batcher[str] = Batcher(run, max_batch=8, max_wait_s=0.01)

    def saturate(key: str) -> None:
        while not over.is_set():
            with batcher.admit(BULK) as admission:
                futures = admission.submit_all(key, [1] * 16)
            for future in futures:
                future.result(10)

    threads = [threading.Thread(target=saturate, args=(key,)) for key in (A, A, B, B)]
    for thread in threads:
        thread.start()
    waits_s: list[float] = []
    for n in range(40):
        time.sleep(0.007 * (n % 7))
        began_s = time.monotonic()
        batcher.submit((A, B)[n % 2], 2).result(10)
        waits_s.append(time.monotonic() - began_s)
    over.set()
    for thread in threads:
        thread.join()
    assert batcher.close(5)
    assert sorted(waits_s)[int(0.95 * len(waits_s))] <= 3 * batch_s, waits_s
