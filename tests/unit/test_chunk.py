"""One attempt at a chunk: what is kept, what is tried again and when, what is written."""

import random
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from producer.contract import (
    CaptionChunk,
    ErrorCode,
    ImageFacts,
    ImageJob,
    ItemResult,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    ModelFacts,
    PackFacts,
    Timings,
    utcnow,
)
from producer.memory_store import MemoryStore
from producer.store import StoreUnavailable
from tests.stand_in_worker import succeeded
from worker.answer import Answer
from worker.chunk import Chunks, GoesBack, TryAgain
from worker.delivery import Delivery
from worker.errors import Fault
from worker.intake import Unbegun
from worker.pipeline import Product
from worker.retry import SINK_ATTEMPTS

FACTS = ImageFacts(format="PNG", width=4, height=3, bytes=99, sha256="0" * 64)
IMAGES = tuple(f"https://example.com/{n}.png" for n in range(4))
SINK = "file:///shards/"


class FakeModels:
    def facts_of(self, job: ImageJob) -> dict[str, ModelFacts]:
        assert job.task in ("caption", "match")
        return {"model": ModelFacts(id="tiny", revision="1", dtype="float32")}


class FakeSinks:
    """Keeps what is written, after `failures` of its writes have failed."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.written: list[tuple[str, list[ItemResult]]] = []

    def check(self, sink: str, kind: str) -> None:
        if sink != SINK:
            raise Fault(ErrorCode.SINK_NOT_ALLOWED)

    def write(self, sink: str, kind: str, job_id: str, items: list[ItemResult]) -> str:
        if self.failures:
            self.failures -= 1
            raise Fault(ErrorCode.SINK_UNAVAILABLE, "the disk is full")
        self.written.append((job_id, items))
        return f"{sink}{job_id}.{kind}"


class House:
    """Chunks over a memory store; `outcomes` are by image, one for each try, the last for ever."""

    def __init__(self, *outcomes: list[Any], store: Any = None, sinks: Any = None) -> None:
        self.outcomes = dict(zip(IMAGES, outcomes, strict=False))
        self.tried: list[list[str]] = []
        self.store = store or MemoryStore()
        self.sinks = sinks or FakeSinks()
        self.ending = False
        self.chunks = Chunks(
            self,  # type: ignore[arg-type]
            FakeModels(),  # type: ignore[arg-type]
            self.store,
            self.sinks,
            patience_s=0.01,
            rng=random.Random(0),
            ending=lambda: self.ending,
        )

    def run(self, jobs: Iterable[ImageJob]) -> list[Any]:
        """As an Intake does."""
        jobs = list(jobs)
        self.tried.append([job.image.rpartition("/")[2][0] for job in jobs])
        return [self._next(job) for job in jobs]

    def _next(self, job: ImageJob) -> Any:
        outcomes = self.outcomes[job.image]
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        if outcome is None:
            return Product(Answer(captions=succeeded(job).captions), FACTS, Timings())
        return outcome

    def deliver(self, attempt: int = 1, **fields: Any) -> JobResult:
        images = IMAGES[: len(self.outcomes)]
        chunk = CaptionChunk(job_id="a", images=images, **fields)
        self.store.start("a", "caption_chunk", attempt, "here", utcnow())
        delivery = Delivery(None, "a", attempt, 0, "celery", "here")
        return self.chunks.run(chunk, delivery)


def told(items: Iterable[ItemResult] | None) -> list[tuple[int, str, int]]:
    return [(item.index, item.outcome, item.attempts) for item in items or ()]


BUSY = Fault(ErrorCode.HTTP_5XX, "503")
GONE = Fault(ErrorCode.HTTP_4XX, "404")


def test_given_images_that_all_end_at_once_then_the_result_is_in_order() -> None:
    house = House([None], [GONE], [None])
    result = house.deliver()
    assert told(result.items) == [(0, "succeeded", 1), (1, "http_4xx", 1), (2, "succeeded", 1)]
    assert result.counts == {"succeeded": 2, "http_4xx": 1}
    assert (result.state, result.task, result.shard) == (JobState.SUCCEEDED, "caption_chunk", None)
    assert house.store.settle("a").items == {}


GERMAN, FRENCH = (PackFacts(name=n, language=n, revision="0" * 12) for n in ("de", "fr"))


@pytest.mark.parametrize(
    ("packs", "whole"),
    [
        ([GERMAN, GERMAN], GERMAN),
        ([GERMAN, FRENCH], None),  # between two attempts
        ([None, None], None),
        ([GERMAN, None], None),
    ],
)
def test_given_packs_of_its_images_then_a_chunk_says_the_one_that_answered_for_all(
    packs: list[PackFacts | None], whole: PackFacts | None
) -> None:
    outcomes = [[Product(Answer(pack=pack), FACTS, Timings())] for pack in packs]
    result = House(*outcomes, [GONE]).deliver()
    assert [item.pack for item in result.items or ()] == [*packs, None]
    assert result.pack == whole


@pytest.mark.parametrize(
    ("outcome", "code", "tries"),
    [
        pytest.param(GONE, "http_4xx", 1, id="permanent"),
        pytest.param(BUSY, "http_5xx", 3, id="transient"),
        pytest.param(Fault(ErrorCode.DECODE_CRASHED), "decode_crashed", 2, id="second chance"),
        pytest.param(ZeroDivisionError(), "internal_error", 2, id="a fault of ours"),
        pytest.param(SystemExit(3), "internal_error", 2, id="SystemExit"),
        pytest.param(JobFailed(ErrorCode.JOB_INVALID), "job_invalid", 1, id="what it asks for"),
        pytest.param(MemoryError(), "out_of_memory", 3, id="MemoryError"),
    ],
)
def test_given_an_image_that_fails_then_it_alone_is_tried_again_as_a_job_of_its_own_would_be(
    outcome: BaseException, code: str, tries: int
) -> None:
    house = House([None], [outcome])
    for attempt in range(1, tries):
        with pytest.raises(TryAgain):
            house.deliver(attempt)
    result = house.deliver(tries)
    assert told(result.items) == [(0, "succeeded", 1), (1, code, tries)]
    assert house.tried == [["0", "1"]] + [["1"]] * (tries - 1)


def test_given_several_to_be_tried_again_then_no_host_is_asked_before_it_wants_to_be() -> None:
    house = House([Fault(ErrorCode.HTTP_5XX, "503", 9.0), None], [BUSY, None], [None])
    with pytest.raises(TryAgain) as again:
        house.deliver()
    assert (again.value.code, again.value.wait_s) == (ErrorCode.HTTP_5XX, 9.0)
    assert told(house.store.settle("a").items.values()) == [(2, "succeeded", 1)]


def test_given_an_attempt_that_is_delivered_again_then_what_is_settled_does_not_run() -> None:
    house = House([None], [BUSY, BUSY, None])
    with pytest.raises(TryAgain):
        house.deliver(1)
    with pytest.raises(TryAgain):
        house.deliver(2)
    house.deliver(2)
    assert house.tried == [["0", "1"], ["1"], ["1"]]


def test_given_a_chunk_whose_time_runs_out_then_it_ends_as_a_whole() -> None:
    house = House([None], [JobFailed(ErrorCode.JOB_EXPIRED)])
    with pytest.raises(JobFailed) as failure:
        house.deliver(expires_at=utcnow() + timedelta(hours=1))
    assert failure.value.code is ErrorCode.JOB_EXPIRED


def cancelled() -> JobResult:
    return JobResult(
        job_id="a",
        task="caption_chunk",
        state=JobState.CANCELLED,
        attempts=1,
        error=JobError.of(JobFailed(ErrorCode.JOB_CANCELLED)),
        finished_at=utcnow(),
    )


class Cancelling(MemoryStore):
    """The job is cancelled just before the settled images come to be kept."""

    def settle(self, job_id: str, items: Any = ()) -> Any:
        if items:
            self.finish(cancelled())
        return super().settle(job_id, items)


@pytest.mark.parametrize("outcome", [None, BUSY], ids=["whole", "to be tried again"])
def test_given_a_chunk_that_is_cancelled_while_it_runs_then_no_shard_is_written_and_no_retry_sent(
    outcome: Any,
) -> None:
    house = House([None], [outcome], store=Cancelling())
    assert house.deliver(sink=SINK).state is JobState.CANCELLED
    assert house.sinks.written == []


def test_given_a_process_that_ends_then_what_is_settled_is_kept_and_the_rest_goes_back() -> None:
    house = House([None], [Unbegun(), None], [GONE])
    with pytest.raises(GoesBack):
        house.deliver()
    assert told(house.store.settle("a").items.values()) == [(0, "succeeded", 1), (2, "http_4xx", 1)]
    house.deliver()
    assert house.tried == [["0", "1", "2"], ["1"]]


def test_given_a_process_that_ends_before_the_shard_is_written_then_another_writes_it() -> None:
    house = House([None])
    house.ending = True
    with pytest.raises(GoesBack):
        house.deliver(sink=SINK)
    assert house.sinks.written == []
    house.ending = False
    assert house.deliver(sink=SINK).shard == f"{SINK}a.jsonl"
    assert house.tried == [["0"], []]


def test_given_a_process_that_ends_when_all_is_settled_and_no_sink_then_the_chunk_ends() -> None:
    house = House([None])
    house.ending = True
    assert house.deliver().counts == {"succeeded": 1}


@pytest.mark.parametrize("image_tries", [1, 3])
def test_given_a_sink_that_is_away_then_it_is_tried_eight_times_and_no_image_again(
    image_tries: int,
) -> None:
    house = House([BUSY] * (image_tries - 1) + [None], sinks=FakeSinks(SINK_ATTEMPTS - 1))
    attempts = image_tries + SINK_ATTEMPTS - 1
    for attempt in range(1, attempts):
        with pytest.raises(TryAgain):
            house.deliver(attempt, sink=SINK)
    result = house.deliver(attempts, sink=SINK)
    assert (result.shard, result.items) == (f"{SINK}a.jsonl", None)
    assert sum(map(len, house.tried)) == image_tries
    assert told(house.sinks.written[0][1]) == [(0, "succeeded", image_tries)]


def test_given_a_sink_that_stays_away_then_the_chunk_fails_and_its_images_stay_settled() -> None:
    house = House([None], sinks=FakeSinks(99))
    for attempt in range(1, SINK_ATTEMPTS):
        with pytest.raises(TryAgain):
            house.deliver(attempt, sink=SINK)
    with pytest.raises(Fault) as fault:
        house.deliver(SINK_ATTEMPTS, sink=SINK)
    assert fault.value.code is ErrorCode.SINK_UNAVAILABLE
    assert told(house.store.settle("a").items.values()) == [(0, "succeeded", 1)]


def test_given_a_sink_that_is_not_allowed_then_no_image_runs() -> None:
    house = House([None])
    with pytest.raises(Fault) as fault:
        house.deliver(sink="file:///elsewhere/")
    assert fault.value.code is ErrorCode.SINK_NOT_ALLOWED
    assert house.tried == []


def test_given_two_workers_on_one_chunk_then_the_shard_says_what_was_settled_first() -> None:
    """One had lost its lease, and did not know."""
    house = House([None], [None])
    earlier = ItemResult(
        index=1,
        state=JobState.FAILED,
        attempts=1,
        error=JobError.of(JobFailed(ErrorCode.HTTP_4XX)),
    )
    run: Callable[..., Any] = house.run

    def meanwhile(jobs: Any) -> Any:
        house.store.settle("a", [earlier])
        return run(jobs)

    house.run = meanwhile  # type: ignore[method-assign]
    house.deliver(sink=SINK)
    ((_, items),) = house.sinks.written
    assert told(items) == [(0, "succeeded", 1), (1, "http_4xx", 1)]


class Away(MemoryStore):
    """Keeps no settled images while it is away."""

    away = False

    def settle(self, job_id: str, items: Any = ()) -> Any:
        if self.away and items:
            raise StoreUnavailable("away")
        return super().settle(job_id, items)


def test_given_no_store_when_images_are_settled_then_this_process_remembers_them() -> None:
    house = House([None], [BUSY, None], store=Away())
    house.store.away = True
    with pytest.raises(StoreUnavailable):
        house.deliver()
    house.store.away = False
    result = house.deliver()
    assert told(result.items) == [(0, "succeeded", 1), (1, "succeeded", 1)]
    assert house.tried == [["0", "1"], ["1"]]
