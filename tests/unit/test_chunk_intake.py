"""Many images at once: in order, bounded, each alone, and none for ever."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from producer.contract import CaptionJob, ErrorCode, JobFailed, utcnow
from tests.unit.test_pipeline import FACTS, PIXELS, FakeModels, NoMemoryError
from worker.asked import BatchKey
from worker.batcher import Batcher
from worker.errors import Fault
from worker.image import Decoded
from worker.intake import Intake, IntakeLimits, Unbegun
from worker.pipeline import Pipeline, Product

Fetch = Callable[[str, float], bytes]
Run = Callable[[BatchKey, Sequence[Any]], Sequence[Any]]


@pytest.fixture
def make() -> Iterator[Callable[..., Intake]]:
    """An intake over a real pipeline and batcher. At its end every place has come back."""
    ends: list[Callable[[], object]] = []

    def build(
        fetch: Fetch = lambda uri, deadline: b"png",
        run: Run = lambda _, items: items,
        threads: int = 4,
        places: int = 8,
        timeout_s: float = 5,
        ending: Callable[[], bool] = lambda: False,
    ) -> Intake:
        batcher: Batcher[BatchKey] = Batcher(run, max_batch=4, max_wait_s=0.01)
        pipeline = Pipeline(
            fetch,
            lambda data, framing, regions: Decoded((PIXELS,), FACTS),
            FakeModels(),  # type: ignore[arg-type]
            batcher,
            fetch_timeout_s=3,
            infer_timeout_s=5,
            engine_errors={NoMemoryError: ErrorCode.OUT_OF_MEMORY},
        )
        intake = Intake(pipeline, IntakeLimits(threads, places, timeout_s), ending)

        def end() -> None:
            assert batcher.close(5)
            intake._pool.shutdown()
            for _ in range(places):
                assert intake._places.acquire(timeout=0)
            assert not intake._places.acquire(timeout=0)

        ends.append(end)
        return intake

    yield build
    for end in ends:
        end()


def jobs(count: int, **fields: Any) -> list[CaptionJob]:
    return [CaptionJob(image=f"https://example.com/{n}.png", **fields) for n in range(count)]


def number(uri: str) -> int:
    return int(uri.rpartition("/")[2].removesuffix(".png"))


def told(outcomes: Sequence[Any]) -> list[Any]:
    """What each image gave: its number, the code of its fault, or the class of what it raised."""
    return [
        number(str(one.answer))
        if isinstance(one, Product)
        else getattr(one, "code", None) or type(one)
        for one in outcomes
    ]


def test_given_images_that_end_in_any_order_then_their_outcomes_are_in_the_jobs_order(
    make: Callable[..., Intake],
) -> None:
    def fetch(uri: str, _: float) -> bytes:
        time.sleep(0.02 * (number(uri) % 3))
        if number(uri) == 5:
            raise Fault(ErrorCode.HTTP_4XX, "404")
        if number(uri) == 7:
            raise ZeroDivisionError
        return b"png"

    outcomes = make(fetch).run(jobs(12))
    assert told(outcomes) == [
        *range(5),
        ErrorCode.HTTP_4XX,
        6,
        ZeroDivisionError,
        *range(8, 12),
    ]


def test_given_an_engine_that_fails_at_one_image_then_the_others_are_fine(
    make: Callable[..., Intake],
) -> None:
    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        if any(number(item) == 2 for item in items):
            raise NoMemoryError
        return items

    assert told(make(run=run).run(jobs(4))) == [0, 1, ErrorCode.OUT_OF_MEMORY, 3]


def test_given_a_task_that_is_not_served_then_nothing_is_begun(make: Callable[..., Intake]) -> None:
    class Lacking(FakeModels):
        def plan(self, job: Any) -> Any:
            raise Fault(ErrorCode.MODEL_LACKS_CAPTIONING)

    intake = make()
    intake._pipeline._models = Lacking()  # type: ignore[assignment]
    with pytest.raises(Fault):
        intake.run(jobs(2))


def test_given_several_messages_then_no_more_images_are_fetched_at_once_than_there_are_threads(
    make: Callable[..., Intake],
) -> None:
    inside, most, lock = [0], [0], threading.Lock()

    def fetch(uri: str, _: float) -> bytes:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.005)
        with lock:
            inside[0] -= 1
        return b"png"

    intake = make(fetch, threads=3, places=100)
    with ThreadPoolExecutor(4) as messages:
        for outcomes in messages.map(intake.run, [jobs(10)] * 4):
            assert told(outcomes) == list(range(10))
    assert most == [3]


def test_given_a_device_that_is_slow_then_no_more_images_wait_in_memory_than_there_are_places(
    make: Callable[..., Intake],
) -> None:
    fetched: list[str] = []
    gate = threading.Event()

    def fetch(uri: str, _: float) -> bytes:
        fetched.append(uri)
        return b"png"

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        gate.wait(5)
        return items

    intake = make(fetch, run, places=6)
    with ThreadPoolExecutor(1) as message:
        running = message.submit(intake.run, jobs(20))
        deadline_s = time.monotonic() + 5
        while len(fetched) < 6:
            assert time.monotonic() < deadline_s
        time.sleep(0.05)
        assert len(fetched) == 6
        gate.set()
        assert told(running.result(5)) == list(range(20))


def test_given_images_that_are_not_done_in_time_then_they_have_failed_and_the_others_have_not(
    make: Callable[..., Intake],
) -> None:
    gate = threading.Event()

    def fetch(uri: str, _: float) -> bytes:
        if number(uri) in (1, 2):
            gate.wait(5)
        return b"png"

    began_s = time.monotonic()
    outcomes = make(fetch, threads=2, places=4, timeout_s=0.1).run(jobs(6))
    assert time.monotonic() - began_s < 2
    late = ErrorCode.WORKER_OVERLOADED
    assert told(outcomes) == [0, late, late, late, late, late]
    gate.set()


def test_given_more_messages_than_there_is_time_for_in_one_then_none_fails_for_having_waited(
    make: Callable[..., Intake],
) -> None:
    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        time.sleep(0.02 * len(items))
        return items

    intake = make(run=run, threads=2, places=4, timeout_s=2.5)
    with ThreadPoolExecutor(20) as messages:  # 4 s of the device
        for outcomes in messages.map(intake.run, [jobs(10)] * 20):
            assert told(outcomes) == list(range(10))


def test_given_a_bulk_message_that_takes_long_then_an_interactive_one_has_its_turn_meanwhile(
    make: Callable[..., Intake],
) -> None:
    bulk, begun = jobs(50, lane="bulk"), threading.Event()
    fetched: list[str] = []

    def fetch(uri: str, _: float) -> bytes:
        fetched.append(uri)
        begun.set()
        time.sleep(0.01)
        return b"png"

    intake = make(fetch, threads=2, places=2)
    with ThreadPoolExecutor(1) as message:
        running = message.submit(intake.run, bulk)
        assert begun.wait(5)
        assert told(intake.run(jobs(3))) == [0, 1, 2]
        assert len(fetched) < 40
        assert told(running.result(5)) == list(range(50))


def test_given_a_process_that_ends_then_a_message_that_waits_for_its_turn_is_not_begun(
    make: Callable[..., Intake],
) -> None:
    gate, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def fetch(uri: str, _: float) -> bytes:
        begun.set()
        assert gate.wait(5)
        return b"png"

    intake = make(fetch, places=2, ending=ended.is_set)
    with ThreadPoolExecutor(2) as messages:
        first = messages.submit(intake.run, jobs(3))
        assert begun.wait(5)
        second = messages.submit(intake.run, jobs(2))
        ended.set()
        assert told(second.result(5)) == [Unbegun, Unbegun]
        gate.set()
        first.result(5)


def test_given_a_process_that_ends_then_what_is_begun_is_finished_and_the_rest_is_not_begun(
    make: Callable[..., Intake],
) -> None:
    ended = threading.Event()

    def fetch(uri: str, _: float) -> bytes:
        if number(uri) == 1:
            ended.set()
        return b"png"

    outcomes = make(fetch, threads=1, places=3, ending=ended.is_set).run(jobs(6))
    assert told(outcomes) == [0, 1, *[Unbegun] * 4]


def test_given_a_time_that_has_run_out_then_nothing_is_fetched(make: Callable[..., Intake]) -> None:
    def fetch(uri: str, _: float) -> bytes:
        raise AssertionError("fetched")

    past = utcnow() - timedelta(seconds=1)
    outcomes = make(fetch).run(jobs(2, expires_at=past))
    assert [type(one) for one in outcomes] == [JobFailed] * 2
    assert told(outcomes) == [ErrorCode.JOB_EXPIRED] * 2


class Linguists(FakeModels):
    """Models that know a few languages; each is planned once for all images in it."""

    def __init__(self, known: set[str | None]) -> None:
        self.known, self.planned = known, list[Any]()

    def plan(self, job: Any) -> Any:
        self.planned.append(job.language)
        if job.language not in self.known:
            raise JobFailed(ErrorCode.LANGUAGE_UNAVAILABLE)
        return super().plan(job)


def test_given_images_in_several_languages_then_those_that_nobody_speaks_fail_alone(
    make: Callable[..., Intake],
) -> None:
    intake = make()
    intake._pipeline._models = models = Linguists({"de", None})  # type: ignore[assignment]
    asked = [
        job.model_copy(update={"language": language})
        for job, language in zip(jobs(5), ["de", "fr", None, "de", "fr"], strict=True)
    ]
    unknown = ErrorCode.LANGUAGE_UNAVAILABLE
    assert told(intake.run(asked)) == [0, unknown, 2, 3, unknown]
    assert models.planned == ["de", "fr", None]
    with pytest.raises(JobFailed):
        intake.run([asked[1], asked[4]])
