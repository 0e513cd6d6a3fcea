"""What a run is made of: reading ahead, patience, interruption, progress."""

import io
import math
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from producer.errors import BrokerUnavailable
from producer.manifest.counting import Counting
from producer.manifest.feed import DEPTH, Feed
from producer.manifest.interrupt import Interrupt
from producer.manifest.patience import Patience
from producer.manifest.progress import Lines, OnTerminal, Progress, duration, failures, summary

AWAY = BrokerUnavailable("The broker cannot be reached.")


def drained(feed: Feed[int]) -> list[int]:
    read = []
    while not feed.over:
        if (item := feed.get(1.0)) is not None:
            read.append(item)
    return read


def test_given_items_then_a_feed_gives_them_in_order() -> None:
    assert drained(Feed(iter(range(100)))) == list(range(100))


def test_given_a_source_that_fails_then_what_came_before_is_given_first() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    feed = Feed(items())

    assert feed.get(1.0) == 1
    with pytest.raises(ValueError, match="damaged"):
        feed.get(1.0)
    assert feed.over


def test_given_nobody_who_takes_then_a_feed_reads_a_bounded_number_and_ends_when_closed() -> None:
    read: list[int] = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for n in range(10_000):
            read.append(n)
            if n > DEPTH:
                full.set()
            yield n

    feed = Feed(items())
    assert not full.wait(0.3)
    feed.close()

    assert len(read) <= DEPTH + 3
    assert not feed._thread.is_alive()


def test_given_outages_then_patience_pauses_longer_and_ends_at_its_limit() -> None:
    now_s, said = 0.0, []
    patience = Patience(10.0, said.append, lambda: now_s, reached=True)
    pauses = []
    while now_s < 9:
        pauses.append(patience.failed(AWAY))
        now_s += pauses[-1]
    now_s = 10.0
    with pytest.raises(BrokerUnavailable):
        patience.failed(AWAY)

    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert said == ["The broker cannot be reached. Trying again until it is back."]


def test_given_the_end_of_an_outage_then_patience_begins_anew() -> None:
    now_s, said = 0.0, []
    patience = Patience(10.0, said.append, lambda: now_s)
    patience.well()
    for _ in range(5):
        patience.failed(AWAY)
        now_s += 9
        patience.well()

    assert said[-1] == "Back after 9 s."
    assert patience.failed(AWAY) == 0.2


def test_given_a_service_that_was_never_there_then_there_is_no_patience() -> None:
    with pytest.raises(BrokerUnavailable):
        Patience(math.inf).failed(AWAY)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_given_a_signal_then_waiting_is_left_at_once_and_a_step_is_not(number: int) -> None:
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt), interrupt.waiting():
        os.kill(os.getpid(), number)

    steps = []
    with Interrupt() as interrupt:
        os.kill(os.getpid(), number)
        steps.append("the step ended")
        with pytest.raises(KeyboardInterrupt), interrupt.waiting():
            steps.append("waited")
    assert steps == ["the step ended"]
    assert interrupt.came


COUNTS = Counter(succeeded=1_200, skipped=3, http_4xx=30, job_invalid=2)


def test_given_counts_then_the_summary_has_a_line_for_each_code() -> None:
    assert summary(COUNTS, here=1_000, seconds=10).splitlines() == [
        "1,235 images: 1,200 succeeded, 32 failed, 3 skipped; 10 s (100/s)",
        "  http_4xx            30  The image host refused the request (4xx).",
        "  job_invalid          2  The job does not follow the contract.",
    ]
    assert failures(COUNTS) == 32


def test_given_a_run_then_lines_tell_rate_failures_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now_s = 0.0
    lines = Lines(total=1_000, begun=100, clock_s=lambda: now_s)
    for seconds in (1.0, 10.0, 15.0, 20.0):
        now_s = seconds
        lines.show(Counter(succeeded=100 + int(10 * now_s), http_4xx=5), 4)

    assert capsys.readouterr().err.splitlines() == [
        "captionq: 205 of 1,000, 5 failed, 10/s, 4 chunks in flight, 76 s left",
        "captionq: 305 of 1,000, 5 failed, 10/s, 4 chunks in flight, 68 s left",
    ]


def test_given_a_total_that_is_known_late_then_time_left_is_told_from_then_on() -> None:
    progress = Progress(clock_s=iter((0.0, 0.0, 20.0)).__next__)
    progress.show(Counter(succeeded=100), 4)

    before = progress.words(100, 0, 4)
    progress.expect(200)

    assert before == "100 images, 0 failed, 5/s, 4 chunks in flight"
    assert progress.words(100, 0, 4) == "100 of 200, 0 failed, 5/s, 4 chunks in flight, 20 s left"


def test_given_items_then_they_are_counted_unless_that_is_stopped_or_they_fail() -> None:
    told: queue.Queue[int] = queue.Queue()
    go_on = threading.Event()

    def items(count: int) -> Iterator[int]:
        yield from range(count)
        assert go_on.wait(5)
        if count == 3:
            raise ValueError("damaged")
        yield count

    counting = [Counting(items(count), told.put) for count in (1, 2, 3)]
    counting[0].stop()
    go_on.set()

    assert told.get(timeout=5) == 3
    for thread in threading.enumerate():
        if thread.name == "counting":
            thread.join(5)
    assert told.empty()


def test_given_a_terminal_then_a_bar_shows_the_same() -> None:
    file = io.StringIO()
    bar = OnTerminal(10, clock_s=iter(range(100)).__next__, file=file)
    bar.say("a [word]")
    bar.show(Counter(succeeded=7), 1)
    bar.close()

    assert "captionq: a [word]" in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (6_000, "1 h 40 min")]
)
def test_given_seconds_then_people_are_told(seconds: float, words: str) -> None:
    assert duration(seconds) == words
