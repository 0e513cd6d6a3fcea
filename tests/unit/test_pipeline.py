"""The pipeline: every stage's failure has its code, and the stages run in order."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from producer.contract import CaptionJob, ErrorCode, ImageFacts, Job, MatchJob
from worker.batcher import Batcher
from worker.errors import Fault
from worker.image import Decoded
from worker.models import BatchKey
from worker.pipeline import Pipeline

FACTS = ImageFacts(format="PNG", width=4, height=3, bytes=3, sha256="0" * 64)
PIXELS = np.zeros((2, 2, 3), np.uint8)
CAPTION = CaptionJob(image="https://example.com/a.png")


class NoMemoryError(Exception):
    pass


class FakeModels:
    """Serves captions alone; its engine wants 2 x 2 pixels."""

    image_size = (2, 2)
    resample = 3

    def engine(self, task: str) -> Any:
        if task != "caption":
            raise Fault(ErrorCode.MODEL_LACKS_MATCHING)
        return self

    def item(self, job: Job, pixels: Any) -> tuple[BatchKey, Any]:
        return BatchKey(job.task), job.image


@pytest.fixture
def make() -> Iterator[Callable[..., Pipeline]]:
    """A pipeline whose stages may be replaced; its batcher is real."""
    batchers: list[Batcher[BatchKey]] = []

    def build(
        run: Callable[[BatchKey, Sequence[Any]], Sequence[Any]] = lambda _, items: items,
        fetch: Callable[[str, float], bytes] = lambda uri, deadline: b"png",
        decode: Callable[..., Decoded] = lambda data, size, resample: Decoded(PIXELS, FACTS),
        infer_timeout_s: float = 5,
    ) -> Pipeline:
        batcher = Batcher(run, max_batch=4, max_wait_s=0.01)
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

    def decode(data: bytes, size: tuple[int, int], resample: int) -> Decoded:
        seen.append((data, size, resample))
        return Decoded(PIXELS, FACTS)

    product = make(decode=decode).run(CAPTION)
    assert seen == [(b"png", (2, 2), 3)]
    assert product.outputs == CAPTION.image
    assert product.image == FACTS
    assert product.timings.batch_size == 1
    stages = (product.timings.fetch_ms, product.timings.decode_ms, product.timings.infer_ms)
    assert all(ms is not None and ms >= 0 for ms in stages)


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
    with pytest.raises(Fault) as fault:
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
