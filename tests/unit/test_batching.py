"""The batching policy with two lanes: as a table, and over time with a device of known speed."""

import heapq
import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.queues import BULK, INTERACTIVE, Lane
from worker.batching import BATCHES_IN_A_ROW, Take, Wait, Waiting, decide
from worker.lines import Item, Lines

A, B = "a", "b"
ROW = BATCHES_IN_A_ROW


@pytest.mark.parametrize(
    ("waiting", "now_s", "coming", "passed_over", "expected"),
    [
        pytest.param({A: Waiting(bulk=9, bulk_oldest_s=0.0)}, 0.0, (0, 0), 0, Take(A), id="bulk"),
        pytest.param(
            {A: Waiting(bulk=9, bulk_oldest_s=0.0), B: Waiting(1, 0.9)},
            0.9,
            (0, 5),
            0,
            Take(B),
            id="interactive overtakes, and waits for no bulk",
        ),
        pytest.param(
            {A: Waiting(bulk=9, bulk_oldest_s=0.0), B: Waiting(1, 0.75)},
            1.0,
            (2, 5),
            0,
            Wait(0.75),
            id="no bulk runs while interactive gathers",
        ),
        pytest.param(
            {A: Waiting(1, 0.9, bulk=3, bulk_oldest_s=0.0)},
            1.0,
            (2, 5),
            0,
            Take(A),
            id="bulk has filled the batch",
        ),
        pytest.param(
            {A: Waiting(1, 0.2), B: Waiting(1, 0.4, bulk=3, bulk_oldest_s=0.0)},
            0.5,
            (2, 5),
            0,
            Take(B),
            id="a batch that bulk fills goes before one that gathers",
        ),
        pytest.param(
            {A: Waiting(bulk=1, bulk_oldest_s=0.0)},
            0.25,
            (0, 3),
            0,
            Wait(0.75),
            id="bulk waits for bulk",
        ),
        pytest.param(
            {A: Waiting(bulk=1, bulk_oldest_s=0.0)},
            0.25,
            (3, 0),
            0,
            Wait(0.75),
            id="bulk waits for interactive",
        ),
        pytest.param(
            {A: Waiting(bulk=1, bulk_oldest_s=0.0)},
            1.0,
            (3, 3),
            0,
            Take(A),
            id="bulk waited long enough",
        ),
        pytest.param(
            {A: Waiting(bulk=1, bulk_oldest_s=0.5), B: Waiting(bulk=1, bulk_oldest_s=0.2)},
            0.6,
            (0, 0),
            0,
            Take(B),
            id="idle: the older bulk",
        ),
        pytest.param(
            {A: Waiting(bulk=1, bulk_oldest_s=0.0), B: Waiting(9, 0.0)},
            1.0,
            (3, 3),
            ROW - 1,
            Take(B),
            id="not yet bulk's turn",
        ),
        pytest.param(
            {A: Waiting(bulk=1, bulk_oldest_s=0.0), B: Waiting(9, 0.0, 9, 0.1)},
            1.0,
            (3, 3),
            ROW,
            Take(A, BULK),
            id="bulk's turn",
        ),
        pytest.param(
            {A: Waiting(9, 0.0, 1, 0.1)}, 1.0, (3, 3), ROW, Take(A, BULK), id="of the same key"
        ),
    ],
)
def test_given_two_lanes_the_policy_takes_or_waits(
    waiting: dict[str, Waiting],
    now_s: float,
    coming: tuple[int, int],
    passed_over: int,
    expected: Take[str] | Wait,
) -> None:
    decision = decide(
        waiting,
        now_s,
        coming[0],
        max_batch=4,
        max_wait_s=1.0,
        bulk_on_the_way=coming[1],
        passed_over=passed_over,
    )
    assert decision == expected


def item(since_s: float = 0.0) -> Item:
    return Item(None, Future(), since_s)


def test_given_items_of_both_lanes_then_one_lane_is_taken_first_and_the_other_fills() -> None:
    lines: Lines[str] = Lines()
    quick, bulk = [item(n) for n in range(3)], [item(n) for n in range(3)]
    lines.add(A, INTERACTIVE, quick)
    lines.add(A, BULK, bulk)
    assert lines.waiting() == {A: Waiting(3, 0.0, 3, 0.0)}
    assert lines.take(A, BULK, 2) == bulk[:2]
    assert lines.take(A, INTERACTIVE, 99) == [*quick, bulk[2]]
    assert not lines
    assert lines.waiting() == {}


def test_given_cancelled_items_then_they_are_not_taken_and_give_up_their_places() -> None:
    lines: Lines[str] = Lines()
    gone, kept, other = item(), item(), item()
    lines.add(A, BULK, [gone, kept])
    lines.add(B, INTERACTIVE, [other])
    assert gone.future.cancel()
    assert lines.take(A, INTERACTIVE, 1) == [kept]
    assert not kept.future.cancel()
    assert (lines.length(BULK), lines.length(INTERACTIVE)) == (0, 1)
    assert lines.take_all() == [other]


@dataclass
class World:
    """A device that takes BATCH_S for a batch, by a clock of its own; bulk always waits."""

    max_batch: int
    max_wait_s: float = 0.1
    bulk_keys: Sequence[str] = (A,)
    lines: Lines[str] = field(default_factory=Lines)
    now_s: float = 0.0
    passed_over: int = 0
    batches: list[list[Item]] = field(default_factory=list)

    def saturate(self) -> None:
        """Bulk waits for two batches of each key."""
        waiting = self.lines.waiting()
        for key in self.bulk_keys:
            missing = 2 * self.max_batch - waiting.get(key, Waiting()).bulk
            self.lines.add(key, BULK, [Item("bulk", Future(), self.now_s) for _ in range(missing)])

    def step(self, on_the_way: int) -> float | None:
        """Run a batch, or do nothing and return how long to wait."""
        self.saturate()
        waiting = self.lines.waiting()
        decision = decide(
            waiting,
            self.now_s,
            on_the_way,
            self.max_batch,
            self.max_wait_s,
            bulk_on_the_way=5,
            passed_over=self.passed_over,
        )
        if isinstance(decision, Wait):
            return decision.timeout_s
        longest = self.lines.longest_waiting_bulk()
        batch = self.lines.take(decision.key, decision.first, self.max_batch)
        left = waiting[decision.key]
        assert len(batch) == min(self.max_batch, left.items + left.bulk), "no place is left empty"
        self.passed_over = 0 if longest in batch else self.passed_over + 1
        assert self.passed_over <= BATCHES_IN_A_ROW, "bulk comes on"
        self.now_s += BATCH_S
        self.batches.append(batch)
        return None


BATCH_S = 1.0


def latencies(world: World, arrivals: list[tuple[float, str]]) -> list[tuple[float, int]]:
    """Of each interactive item: seconds from its arrival to its end, and the batches that the
    interactive items of its time needed, its own among them."""
    heapq.heapify(arrivals)
    own: dict[int, tuple[float, int]] = {}
    ended: list[tuple[float, int]] = []
    while arrivals or own:
        while arrivals and arrivals[0][0] <= world.now_s:
            at_s, key = heapq.heappop(arrivals)
            arrived = Item("quick", Future(), at_s)
            world.lines.add(key, INTERACTIVE, [arrived])
            needed = sum(
                math.ceil(each.items / world.max_batch) for each in world.lines.waiting().values()
            )
            own[id(arrived)] = (at_s, needed)
        before = len(world.batches)
        wait_s = world.step(on_the_way=0)
        if wait_s is not None:
            world.now_s += wait_s
        for batch in world.batches[before:]:
            for done in batch:
                if done.payload == "quick":
                    at_s, needed = own.pop(id(done))
                    ended.append((world.now_s - at_s, needed))
    return ended


@settings(deadline=None, max_examples=150)
@given(
    gaps=st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from([A, B]), st.integers(1, 9)), max_size=60
    ),
    max_batch=st.integers(1, 8),
    bulk_keys=st.sampled_from([(A,), (B,), (A, B), ("c",)]),
)
def test_given_bulk_that_saturates_then_interactive_waits_for_one_batch_and_bulks_turn_at_most(
    gaps: list[tuple[float, str, int]], max_batch: int, bulk_keys: tuple[str, ...]
) -> None:
    at_s, arrivals = 0.0, []
    for gap_s, key, burst in gaps:
        at_s += gap_s
        for _ in range(burst):
            at_s += 1e-6  # no two at the same moment
            arrivals.append((at_s, key))
    world = World(max_batch, bulk_keys=bulk_keys)
    for latency_s, needed in latencies(world, arrivals):
        turns = 1 + needed // BATCHES_IN_A_ROW
        assert latency_s <= (1 + turns + needed) * BATCH_S


def test_given_bulk_that_saturates_and_a_moderate_load_then_p95_is_within_three_batches() -> None:
    arrivals = [(0.37 * n, (A, B)[n % 3 == 0]) for n in range(500)]
    found = sorted(latency_s for latency_s, _ in latencies(World(8), arrivals))
    assert found[int(0.95 * len(found))] <= 3 * BATCH_S


def test_given_interactive_that_saturates_then_every_ninth_batch_is_bulks() -> None:
    world = World(4)
    for _ in range(90):
        world.lines.add(B, INTERACTIVE, [item(world.now_s) for _ in range(8)])
        assert world.step(on_the_way=3) is None
    lanes: list[Lane] = [BULK if b[0].payload == "bulk" else INTERACTIVE for b in world.batches]
    assert lanes == ([INTERACTIVE] * BATCHES_IN_A_ROW + [BULK]) * 10
