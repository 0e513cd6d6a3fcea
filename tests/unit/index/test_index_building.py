"""Runs that build an index: what is done is in it, however a run is cut."""

import random
from pathlib import Path
from typing import Any

import pytest

from producer.contract import (
    CaptionChunk,
    EmbeddingMismatch,
    ErrorCode,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    utcnow,
)
from producer.index.build import Indexed, IndexedOutput
from producer.index.filling import Filling
from producer.index.place import Place
from producer.index.table import Added, VectorIndex
from producer.manifest.interrupt import Interrupt
from producer.manifest.progress import Progress
from producer.manifest.request import Request
from producer.manifest.session import Session
from producer.settings import ProducerSettings
from tests.index_entries import embedding, entry, item, vector
from tests.manifest_service import InProcess

SETTINGS = ProducerSettings(broker_url="redis://127.0.0.1:1/0", upload_url=None)
COUNT = 40
BAD = 17


def answer(chunk: CaptionChunk) -> JobResult:
    assert chunk.embed == "float16"
    items = []
    for index, uri in enumerate(chunk.images):
        number = int(uri.rpartition("/")[2].removesuffix(".png"))
        of_image: dict[str, Any] = {"index": index, "image_ref": uri}
        if number == BAD:
            error = JobError.of(JobFailed(ErrorCode.HTTP_4XX))
            of_image |= {"state": JobState.FAILED, "captions": None, "embeddings": None}
            of_image["error"] = error
        items.append(item(number, **of_image))
    return JobResult(
        job_id=str(chunk.job_id),
        task=chunk.task,
        state=JobState.SUCCEEDED,
        attempts=1,
        items=tuple(items),
        finished_at=utcnow(),
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("".join(f"s3://photos/{n}.png\n" for n in range(COUNT)))
    return path


class Quiet(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def build(
    source: Path, filling: Filling, service: InProcess, resume: bool = False, **fields: Any
) -> list[str]:
    """Run once; what was said of failures."""
    request = Request(
        sources=(str(source),),
        chunk=CaptionChunk(images=("https://example.com/",), embed="float16"),
        index=filling.index.place.uri,
        journal=source.with_name("journal"),
        resume=resume,
        size=7,
        in_flight=2,
        **fields,
    )
    progress = Quiet()
    rows = Indexed(request.chunk, filling)
    into = lambda output: IndexedOutput(output, filling)  # noqa: E731
    with Session(request, SETTINGS, rows=rows, into=into) as session:
        session.run(service, progress, Interrupt())
    filling.finish()
    return progress.said


def test_given_images_then_each_that_succeeds_is_in_the_index_and_failures_are_told(
    source: Path, index: VectorIndex
) -> None:
    filling = Filling(index)
    said = build(source, filling, InProcess(random.Random(1), answer))

    assert index.stats().rows == COUNT - 1
    assert (filling.new, filling.left_out) == (COUNT - 1, {})
    assert said == [f"s3://photos/{BAD}.png: http_4xx: The image host refused the request (4xx)."]
    (hit,) = index.nearest(embedding(vector(8)), 1)
    assert (hit.image_ref, hit.caption) == ("s3://photos/8.png", "a picture of 8")


class Away(Exception):  # noqa: N818
    pass


class Stumbling(VectorIndex):
    """Takes so many rows together, and then no more."""

    def __init__(self, place: Place, rows: int) -> None:
        super().__init__(place)
        self._left = rows

    def upsert(self, entries: Any) -> Added:
        self._left -= len(entries)
        if self._left < 0:
            raise Away
        return super().upsert(entries)


@pytest.mark.parametrize("rows", [0, 5, 13, 20, 30, 38])
def test_given_a_run_that_is_cut_anywhere_when_it_goes_on_then_every_image_is_in_the_index(
    source: Path, index: VectorIndex, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.index.filling.BATCH_ROWS", 5)
    service = InProcess(random.Random(rows), answer)
    with pytest.raises(Away):
        build(source, Filling(Stumbling(index.place, rows)), service)
    already = index.stats().rows if index.space() else 0
    assert already <= rows

    build(source, Filling(VectorIndex(index.place)), service, resume=True)

    assert VectorIndex(index.place).stats().rows == COUNT - 1
    assert set(service.answered.values()) == {1}, "no chunk is captioned twice"


def test_given_a_run_into_another_index_then_it_is_not_resumed(
    source: Path, index: VectorIndex, tmp_path: Path
) -> None:
    with pytest.raises(Away):
        build(source, Filling(Stumbling(index.place, 0)), InProcess(answer=answer))
    other = VectorIndex(Place(str(tmp_path / "other")))
    with pytest.raises(ValueError, match="other options"):
        build(source, Filling(other), InProcess(answer=answer), resume=True)


def test_given_an_index_of_another_revision_then_the_run_ends_at_the_first_result(
    source: Path, index: VectorIndex
) -> None:
    index.upsert([entry(1, revision="r0")])
    service = InProcess(random.Random(1), answer)
    with pytest.raises(EmbeddingMismatch, match="r0"):
        build(source, Filling(index), service)
    assert index.stats().rows == 1
    assert service.answered.total() <= 3
