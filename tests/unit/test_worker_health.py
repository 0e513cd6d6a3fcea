"""Whether a worker does its work: the judgement as a table, its memory by a clock."""

import pytest

from worker.metrics.health import Health, Signs, faults

WELL = Signs(
    begun=True, ending=False, device_lives=True, hub_silent_s=2, depth=5, idle_s=10
)  # fmt: skip


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        pytest.param(WELL, [], id="it works"),
        pytest.param(WELL._replace(depth=0, idle_s=9_999), [], id="nothing waits"),
        pytest.param(WELL._replace(begun=False), ["not begun"], id="it loads its models"),
        pytest.param(WELL._replace(device_lives=False), ["device thread"], id="no device"),
        pytest.param(WELL._replace(hub_silent_s=31), ["event loop"], id="the loop hangs"),
        pytest.param(
            WELL._replace(hub_silent_s=31, depth=None), [], id="the broker is away: it waits"
        ),
        pytest.param(WELL._replace(idle_s=181), ["5 messages wait"], id="nothing ends"),
        pytest.param(
            WELL._replace(hub_silent_s=99, idle_s=999, device_lives=False),
            ["device thread", "event loop", "messages wait"],
            id="all at once",
        ),
        pytest.param(
            WELL._replace(ending=True, device_lives=False, idle_s=999), [], id="it ends as told"
        ),
    ],
)
def test_given_signs_the_faults_are_named(signs: Signs, words: list[str]) -> None:
    found = faults(signs, stall_s=180)
    assert len(found) == len(words)
    assert all(word in one for word, one in zip(words, found, strict=True))


def test_given_no_bound_messages_may_wait_however_long() -> None:
    assert faults(WELL._replace(idle_s=1e9), stall_s=0) == []


class Process:
    """A process whose signs a test sets."""

    def __init__(self) -> None:
        self.now_s, self.depth, self.progress_s = 1_000.0, 0, 0.0
        self.health = Health(
            lambda: self.depth,
            lambda: self.progress_s,
            lambda: True,
            lambda: False,
            stall_s=60,
            clock=lambda: self.now_s,
        )
        self.health.begin()

    def after(self, seconds: float) -> list[str]:
        self.now_s += seconds
        self.health.beat()
        return self.health.faults()


def test_given_a_message_after_a_quiet_night_the_worker_has_its_time_for_it() -> None:
    process = Process()
    assert process.after(9_999) == []
    process.depth = 1
    assert process.after(5) == []
    assert process.after(59) == []
    assert len(process.after(2)) == 1


def test_given_progress_the_time_begins_anew() -> None:
    process = Process()
    process.depth = 9
    assert process.after(1) == []
    process.progress_s = process.now_s + 50
    assert process.after(70) == []
    assert len(process.after(50)) == 1


def test_given_an_empty_queue_between_what_waits_later_has_its_own_time() -> None:
    process = Process()
    process.depth = 1
    assert process.after(1) == []
    process.depth = 0
    assert process.after(50) == []
    process.depth = 1
    assert process.after(50) == []


def test_given_a_loop_that_is_not_heard_of_the_worker_is_not_healthy() -> None:
    process = Process()
    process.now_s += 31
    assert "event loop" in process.health.faults()[0]
