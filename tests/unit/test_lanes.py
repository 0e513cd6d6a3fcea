"""Which lanes the next message is taken from: a table, and what follows under any load."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.queues import BULK, INTERACTIVE, Lane
from worker.lanes import INTERACTIVE_IN_A_ROW, in_a_row, offered, slots, slots_taken

FIRST, LAST = (INTERACTIVE, BULK), (BULK, INTERACTIVE)
N = INTERACTIVE_IN_A_ROW


@pytest.mark.parametrize(
    ("held", "most", "row", "lanes"),
    [
        pytest.param(0, 4, 0, FIRST, id="interactive first"),
        pytest.param(3, 4, N - 1, FIRST, id="not yet bulk's turn"),
        pytest.param(3, 4, N, LAST, id="bulk's turn"),
        pytest.param(4, 4, 0, (INTERACTIVE,), id="bulk has its slots"),
        pytest.param(4, 4, 99, (INTERACTIVE,), id="bulk has its slots, whoever's turn it is"),
        pytest.param(5, 4, 0, (INTERACTIVE,), id="bulk has more than its slots"),
        pytest.param(999, float("inf"), 0, FIRST, id="no bound"),
    ],
)
def test_given_what_is_held_then_the_next_take_looks_through_these_lanes(
    held: int, most: float, row: int, lanes: tuple[Lane, ...]
) -> None:
    assert offered(held, most, row) == lanes


@pytest.mark.parametrize(
    ("before", "lanes", "taken", "after"),
    [
        pytest.param(3, FIRST, INTERACTIVE, 4, id="one more in a row"),
        pytest.param(3, FIRST, BULK, 0, id="bulk was taken"),
        pytest.param(N, LAST, BULK, 0, id="bulk used its turn"),
        pytest.param(N, LAST, INTERACTIVE, 0, id="no bulk waited at its turn"),
        pytest.param(3, (INTERACTIVE,), INTERACTIVE, 3, id="bulk had its slots"),
    ],
)
def test_given_a_take_then_what_was_taken_in_a_row_is_counted(
    before: int, lanes: tuple[Lane, ...], taken: Lane, after: int
) -> None:
    assert in_a_row(before, lanes, taken) == after


@pytest.mark.parametrize(
    ("wanted", "threads", "max_batch", "expected"),
    [
        pytest.param(None, 256, 64, 128, id="two batches"),
        pytest.param(None, 64, 64, 32, id="half the threads"),
        pytest.param(None, 1, 64, 1, id="at least one"),
        pytest.param(60, 64, 64, 60, id="what is set"),
        pytest.param(99, 64, 64, 63, id="but for one thread"),
        pytest.param(5, 1, 64, 1, id="the only thread"),
    ],
)
def test_given_a_worker_then_bulk_has_so_many_slots(
    wanted: int | None, threads: int, max_batch: int, expected: int
) -> None:
    assert slots(wanted, threads, max_batch) == expected


@pytest.mark.parametrize(
    ("images", "slots_there", "taken"),
    [
        pytest.param([], 8, 0, id="nothing"),
        pytest.param([1, 1, 1], 8, 3, id="single jobs"),
        pytest.param([64], 128, 64, id="a chunk is so many images"),
        pytest.param([64, 64], 128, 128, id="two chunks fill two batches"),
        pytest.param([64], 8, 4, id="there is always room for a second chunk"),
        pytest.param([64, 64], 8, 8, id="and for no third"),
        pytest.param([64], 1, 1, id="one slot"),
        pytest.param([64, 1], float("inf"), 65, id="no bound"),
    ],
)
def test_given_images_behind_messages_then_they_take_so_many_slots(
    images: list[int], slots_there: float, taken: int
) -> None:
    assert slots_taken(images, slots_there) == taken


@dataclass
class Worker:
    """Takes as the channel does, from counted queues."""

    threads: int
    bulk_slots: int
    waiting: dict[Lane, int]
    held: list[Lane]
    row: int = 0

    def take(self) -> Lane | None:
        lanes = offered(self.held.count(BULK), self.bulk_slots, self.row)
        taken = next((lane for lane in lanes if self.waiting[lane]), None)
        if taken is not None:
            self.waiting[taken] -= 1
            self.held.append(taken)
            self.row = in_a_row(self.row, lanes, taken)
        return taken


@given(
    threads=st.integers(2, 12),
    bulk_slots=st.integers(1, 11),
    steps=st.lists(st.tuples(st.sampled_from("ibd"), st.integers(0, 40)), max_size=80),
)
def test_given_any_load_then_no_interactive_message_waits_while_a_thread_is_free_and_bulk_comes_on(
    threads: int, bulk_slots: int, steps: list[tuple[str, int]]
) -> None:
    worker = Worker(threads, min(bulk_slots, threads - 1), {INTERACTIVE: 0, BULK: 0}, [])
    passed_over = since_overtaken = 0
    for what, count in steps:
        match what:
            case "i":
                worker.waiting[INTERACTIVE] += count
            case "b":
                worker.waiting[BULK] += count
            case "d":
                del worker.held[: count % (threads + 1)]
        while len(worker.held) < threads:
            room = worker.held.count(BULK) < worker.bulk_slots
            was_interactive, was_bulk = worker.waiting[INTERACTIVE], worker.waiting[BULK]
            taken = worker.take()
            if taken is None:
                assert not was_interactive
                assert not was_bulk or not room
                break
            if taken == BULK:
                passed_over = 0
                if was_interactive:
                    assert since_overtaken >= N
                    since_overtaken = 0
            elif room:
                since_overtaken += 1
                passed_over += was_bulk > 0
                assert passed_over <= N
        assert worker.held.count(BULK) <= worker.bulk_slots
