"""The pipeline: every stage's failure has its code, and the stages run in order."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from producer.contract import (
    Caption,
    CaptionJob,
    ErrorCode,
    ExplainOptions,
    ImageFacts,
    Job,
    JobFailed,
    MatchJob,
    RegionCaptions,
    utcnow,
)
from worker.answer import Answer, Interpreter, Looked
from worker.asked import BatchKey, Plan
from worker.batcher import Batcher
from worker.blip.framing import Framing
from worker.errors import Fault
from worker.image import Decoded
from worker.maps import Explained
from worker.pipeline import Pipeline

FACTS = ImageFacts(format="PNG", width=4, height=3, bytes=3, sha256="0" * 64)
PIXELS = np.zeros((2, 2, 3), np.uint8)
FRAMING = Framing("stretch", (2, 2), 1, 3, (0, 0, 0))
CAPTION = CaptionJob(image="https://example.com/a.png")


class NoMemoryError(Exception):
    pass


class FakeModels:
    """Serves captions alone; its engine wants 2 x 2 pixels."""

    def plan(self, job: Job) -> Plan:
        if job.task != "caption":
            raise Fault(ErrorCode.MODEL_LACKS_MATCHING)
        return Plan(FRAMING)

    def items(self, job: Job, images: Sequence[Any], packs: Any) -> tuple[BatchKey, list[Any]]:
        return BatchKey(job.task), [job.image for _ in images]

    def answer(self, job: Any, said: Sequence[Any], image: Any, packs: Any) -> Any:
        assert threading.current_thread().name != "device"
        looked = [Looked(one) for one in said]
        return Interpreter().answer(job, looked) if job.regions else said[0]


@pytest.fixture
def make() -> Iterator[Callable[..., Pipeline]]:
    """A pipeline whose stages may be replaced; its batcher is real."""
    batchers: list[Batcher[BatchKey]] = []

    def build(
        run: Callable[[BatchKey, Sequence[Any]], Sequence[Any]] = lambda _, items: items,
        fetch: Callable[[str, float], bytes] = lambda uri, deadline: b"png",
        decode: Callable[..., Decoded] = lambda data, framing, regions: Decoded(
            (PIXELS,) * len(regions or [0]), FACTS
        ),
        infer_timeout_s: float = 5,
        max_queue: int = 100,
    ) -> Pipeline:
        batcher = Batcher(run, max_batch=4, max_wait_s=0.01, max_queue=max_queue)
        batchers.append(batcher)
        return Pipeline(
            fetch,
            decode,
            FakeModels(),  # type: ignore[arg-type]
            batcher,
            fetch_timeout_s=3,
            infer_timeout_s=infer_timeout_s,
            engine_errors={NoMemoryError: ErrorCode.OUT_OF_MEMORY},
        )

    yield build
    for batcher in batchers:
        assert batcher.close(5)


def test_given_a_job_it_is_fetched_decoded_and_inferred(make: Callable[..., Pipeline]) -> None:
    seen: list[Any] = []

    def decode(data: bytes, framing: Framing, regions: Any) -> Decoded:
        seen.append((data, framing, regions))
        return Decoded((PIXELS,), FACTS)

    product = make(decode=decode).run(CAPTION)
    assert seen == [(b"png", FRAMING, None)]
    assert product.answer == CAPTION.image
    assert product.image == FACTS
    assert product.timings.batch_size == 1
    stages = (product.timings.fetch_ms, product.timings.decode_ms, product.timings.infer_ms)
    assert all(ms is not None and ms >= 0 for ms in stages)


def said(text: str) -> Caption:
    return Caption(
        text=text,
        tokens=("a",),
        token_logprobs=(-0.5,),
        processed_token_logprobs=(-0.5,),
        logprob=-0.5,
        mean_logprob=-0.5,
        score=-0.5,
        finish_reason="stop",
    )


BOXES = ((0, 0, 2, 1), (1, 0, 4, 3), (0, 0, 1, 1))


def test_given_regions_they_are_one_batch_and_come_back_in_order_with_their_boxes(
    make: Callable[..., Pipeline],
) -> None:
    batches: list[int] = []
    fetched: list[str] = []

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        batches.append(len(items))
        return [(said(str(number)),) for number, _ in enumerate(items)]

    def fetch(uri: str, deadline_s: float) -> bytes:
        fetched.append(uri)
        return b"png"

    job = CAPTION.model_copy(update={"regions": BOXES})
    product = make(run=run, fetch=fetch).run(job)
    assert batches == [3]
    assert fetched == [CAPTION.image]
    assert product.answer.regions == tuple(
        RegionCaptions(box=box, captions=(said(str(number)),)) for number, box in enumerate(BOXES)
    )
    assert product.timings.batch_size == 3


def test_given_more_regions_than_a_batch_holds_they_are_several(
    make: Callable[..., Pipeline],
) -> None:
    run = lambda _, items: [(said("a"),) for _ in items]  # noqa: E731
    job = CAPTION.model_copy(update={"regions": BOXES * 3})
    product = make(run=run).run(job)
    assert [one.box for one in product.answer.regions] == list(BOXES * 3)
    assert product.timings.batch_size == 4


def test_given_one_region_that_fails_the_others_are_not_waited_for(
    make: Callable[..., Pipeline],
) -> None:
    release = threading.Event()
    ran: list[int] = []

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        ran.append(len(items))
        if len(ran) == 1:
            release.wait(10)
        raise NoMemoryError

    pipeline = make(run=run)
    threading.Timer(0.1, release.set).start()
    with pytest.raises(Fault) as fault:
        pipeline.run(CAPTION.model_copy(update={"regions": BOXES * 3}))
    assert fault.value.code is ErrorCode.OUT_OF_MEMORY


def failing(exc: Exception) -> Callable[..., Any]:
    def stage(*_: Any) -> Any:
        raise exc

    return stage


@pytest.mark.parametrize(
    ("stages", "code"),
    [
        pytest.param(
            {"fetch": failing(Fault(ErrorCode.DNS_FAILED))}, ErrorCode.DNS_FAILED, id="fetch"
        ),
        pytest.param(
            {"decode": failing(Fault(ErrorCode.IMAGE_CORRUPT))},
            ErrorCode.IMAGE_CORRUPT,
            id="decode",
        ),
        pytest.param(
            {"decode": failing(JobFailed(ErrorCode.JOB_INVALID))},
            ErrorCode.JOB_INVALID,
            id="regions",
        ),
        pytest.param({"run": failing(NoMemoryError())}, ErrorCode.OUT_OF_MEMORY, id="engine"),
        pytest.param(
            {"run": failing(type("NoneAtAll", (NoMemoryError,), {})())},
            ErrorCode.OUT_OF_MEMORY,
            id="engine, more exactly",
        ),
    ],
)
def test_given_a_stage_that_fails_the_fault_has_its_code(
    make: Callable[..., Pipeline], stages: dict[str, Any], code: ErrorCode
) -> None:
    with pytest.raises((Fault, JobFailed)) as fault:
        make(**stages).run(CAPTION)
    assert fault.value.code is code


def test_given_a_device_that_does_not_answer_the_wait_is_bounded(
    make: Callable[..., Pipeline],
) -> None:
    answer = threading.Event()

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        answer.wait(10)
        return items

    with pytest.raises(Fault) as fault:
        make(run=run, infer_timeout_s=0.05).run(CAPTION)
    assert fault.value.code is ErrorCode.WORKER_OVERLOADED
    answer.set()


def test_given_a_closed_batcher_the_job_goes_elsewhere(make: Callable[..., Pipeline]) -> None:
    pipeline = make()
    pipeline._batcher.close(5)
    with pytest.raises(Fault) as fault:
        pipeline.run(CAPTION)
    assert fault.value.code is ErrorCode.WORKER_OVERLOADED
    assert fault.value.transient


def test_given_a_task_that_is_not_served_nothing_is_fetched(make: Callable[..., Pipeline]) -> None:
    pipeline = make(fetch=failing(AssertionError("fetched")))
    with pytest.raises(Fault) as fault:
        pipeline.run(MatchJob(image=CAPTION.image, texts=("a",)))
    assert fault.value.code is ErrorCode.MODEL_LACKS_MATCHING


def test_given_an_unforeseen_error_of_the_engine_it_passes_unchanged(
    make: Callable[..., Pipeline],
) -> None:
    with pytest.raises(ZeroDivisionError):
        make(run=failing(ZeroDivisionError())).run(CAPTION)


@pytest.mark.parametrize("stage", ["decode", "device"])
def test_given_a_job_whose_time_runs_out_on_its_way_then_it_ends_as_expired_unrun(
    make: Callable[..., Pipeline], stage: str
) -> None:
    ran: list[Any] = []
    gate = threading.Event()

    def decode(*_: Any) -> Decoded:
        if stage == "decode":
            time.sleep(0.06)
        return Decoded((PIXELS,), FACTS)

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        gate.wait(5)
        ran.extend(items)
        return items

    pipeline = make(decode=decode, run=run)
    if stage == "device":
        another = pipeline._batcher.submit(BatchKey("caption"), "another")
        while not another.running():
            pass
    job = CAPTION.model_copy(update={"expires_at": utcnow() + timedelta(seconds=0.05)})
    with pytest.raises(JobFailed) as failure:
        pipeline.run(job)
    assert failure.value.code is ErrorCode.JOB_EXPIRED
    gate.set()
    assert pipeline._batcher.close(5)
    assert ran == (["another"] if stage == "device" else [])


def test_given_more_regions_at_once_than_may_wait_then_they_wait_outside_and_no_job_fails(
    make: Callable[..., Pipeline],
) -> None:
    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        time.sleep(0.01)
        return [(said("a"),)] * len(items)

    pipeline = make(run, max_queue=9)
    job = CAPTION.model_copy(update={"regions": BOXES})
    with ThreadPoolExecutor(12) as threads:
        for product in threads.map(pipeline.run, [job] * 12):
            assert len(product.answer.regions) == 3


@pytest.mark.parametrize(
    ("expires_in_s", "code"),
    [(None, ErrorCode.WORKER_OVERLOADED), (0.1, ErrorCode.JOB_EXPIRED)],
)
def test_given_no_room_for_as_long_as_the_device_is_waited_for_then_the_job_fails(
    make: Callable[..., Pipeline], expires_in_s: float | None, code: ErrorCode
) -> None:
    gate, taken = threading.Event(), threading.Event()

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        taken.set()
        gate.wait(5)
        return items

    pipeline = make(run, infer_timeout_s=0.2, max_queue=1)
    job = CAPTION
    pipeline.begin(job, Plan(FRAMING))
    assert taken.wait(5)
    pipeline.begin(job, Plan(FRAMING))
    if expires_in_s:
        job = job.model_copy(update={"expires_at": utcnow() + timedelta(seconds=expires_in_s)})
    with pytest.raises((Fault, JobFailed)) as told:
        pipeline.begin(job, Plan(FRAMING))
    assert told.value.code is code
    gate.set()


def test_given_a_load_of_interactive_jobs_then_bulk_waits_longer_and_does_not_fail(
    make: Callable[..., Pipeline],
) -> None:
    over = threading.Event()

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        time.sleep(0.02)
        return items

    pipeline = make(run, infer_timeout_s=0.3)

    def busy(_: int) -> None:
        while not over.is_set():
            pipeline.run(CAPTION)

    bulk = CAPTION.model_copy(update={"lane": "bulk"})
    with ThreadPoolExecutor(8) as interactive, ThreadPoolExecutor(8) as others:
        loads = [interactive.submit(busy, n) for n in range(8)]
        try:
            for product in others.map(pipeline.run, [bulk] * 16):
                assert product.answer
        finally:
            over.set()
        for load in loads:
            load.result(5)


@pytest.mark.parametrize(
    ("explain", "longest", "previewed", "pictured"),
    [
        (ExplainOptions(inline=True), 512, True, False),
        (ExplainOptions(pictures=True, sink="s3://a/"), 800, False, True),
        (ExplainOptions(pictures=True, inline=True, sink="s3://a/"), 800, True, True),
        (ExplainOptions(), 0, False, False),
    ],
)
def test_given_an_explained_image_then_it_is_decoded_again_only_where_it_is_to_be_shown(
    make: Callable[..., Pipeline],
    explain: ExplainOptions,
    longest: int,
    previewed: bool,
    pictured: bool,
) -> None:
    sides: list[int] = []
    large = FACTS.model_copy(update={"width": 4_000, "height": 2_000})

    def decode(data: bytes, framing: Framing, regions: Any) -> Decoded:
        height, width = framing.size
        sides.append(max(height, width))
        return Decoded((np.full((height, width, 3), 90, np.uint8),), large)

    def run(_: BatchKey, items: Sequence[Any]) -> Sequence[Any]:
        return [Answer(explained=Explained((), None)) for _ in items]  # type: ignore[arg-type]

    job = CAPTION.model_copy(update={"explain": explain})
    answer = make(run=run, decode=decode).run(job).answer

    assert sides == [2, *([longest] if longest else [])]
    assert (answer.explained.shown is not None) == pictured
    assert (answer.preview is not None) == previewed
    if previewed:
        assert (answer.preview.width, answer.preview.height) == (512, 256)
