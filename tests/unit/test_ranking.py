"""Images ranked by a text: two passes over a service that answers at once."""

import gc
import random
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import pytest

from producer.contract import (
    EmbedChunk,
    Embedding,
    EmbeddingMismatch,
    EmbedJob,
    ErrorCode,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    MatchChunk,
)
from producer.manifest.prepare import Preparer
from producer.manifest.reference import Reference
from producer.ranking import Ranker, rank
from tests.chunk_worker import done
from tests.manifest_service import InProcess
from tests.stand_in_model import MODEL, cosine, embedding, match

TEXT = "a red thing"


def uri(number: int) -> str:
    return f"https://a.example/{number}.jpg"


def expected(uris: list[str], k: int) -> list[str]:
    shortlist = sorted(uris, key=lambda one: -cosine(one, TEXT))[:k]
    return sorted(shortlist, key=lambda one: -match(one, TEXT).score)


@pytest.mark.parametrize(("count", "k"), [(500, 10), (500, 100), (5, 32), (1, 1)])
def test_given_images_then_the_shortlist_is_by_itc_and_its_order_by_itm_and_itc(
    count: int, k: int
) -> None:
    uris = [uri(number) for number in range(count)]

    ranking = rank(InProcess(random.Random(count)), TEXT, iter(uris), k)

    assert [one.image for one in ranking.best] == expected(uris, k)
    assert [uri(one.index) for one in ranking.best] == [one.image for one in ranking.best]
    assert ranking.counts == {"succeeded": count}
    assert (ranking.model, ranking.revision) == (MODEL.id, MODEL.revision)
    for one in ranking.best:
        found = match(one.image, TEXT)
        assert (one.score, one.itm_probability) == (found.score, found.itm_probability)


def test_given_images_that_fail_then_they_are_counted_and_the_others_ranked() -> None:
    images = [uri(0), "https://a.example/bad.jpg", "nowhere.jpg", uri(1)]

    ranking = rank(InProcess(), TEXT, images)

    assert ranking.counts == {"succeeded": 2, "http_4xx": 1, "job_invalid": 1}
    assert {one.index for one in ranking.best} == {0, 3}


def test_given_an_image_that_fails_when_it_is_weighed_then_it_is_counted_once() -> None:
    def end(job: Job) -> JobResult:
        if not isinstance(job, MatchChunk):
            return done(job)
        images = tuple(image.replace("/1.jpg", "/bad.jpg") for image in job.images)
        return done(job.model_copy(update={"images": images}))

    ranking = rank(InProcess(answer=end), TEXT, [uri(0), uri(1)])

    assert ranking.counts == {"succeeded": 1, "http_4xx": 1}
    assert [one.image for one in ranking.best] == [uri(0)]


def test_given_bulk_work_then_the_text_does_not_wait_for_it() -> None:
    lanes: dict[str, set[str]] = {}

    def end(job: Job) -> JobResult:
        lanes.setdefault(job.task, set()).add(job.lane)
        return done(job)

    Ranker(InProcess(answer=end), seen={"lane": "bulk"}).rank(TEXT, [Reference(uri(0), uri(0))])

    assert lanes == {"embed": {"interactive"}, "embed_chunk": {"bulk"}, "match_chunk": {"bulk"}}


def test_given_no_images_then_nothing_is_ranked() -> None:
    ranking = rank(InProcess(), TEXT, [])

    assert ranking.best == ()
    assert ranking.counts.total() == 0


def of_other_revision(job: Job, kind: type) -> JobResult:
    result = done(job)
    if not isinstance(job, kind):
        return result
    items = result.items or ()
    other = {"embeddings": (embedding("x", "float16", revision="2"),)}
    changed = tuple(item.model_copy(update=other) for item in items) or None
    model = MODEL.model_copy(update={"revision": "2"})
    return result.model_copy(update={"items": changed, "model": model})


@pytest.mark.parametrize("kind", [EmbedChunk, MatchChunk])
def test_given_answers_of_another_revision_then_they_are_refused_and_both_are_named(
    kind: type,
) -> None:
    service = InProcess(answer=lambda job: of_other_revision(job, kind))

    with pytest.raises(EmbeddingMismatch, match=r"stand-in at 1.*stand-in at 2"):
        rank(service, TEXT, [uri(0)])


def test_given_embeddings_of_another_size_then_they_are_refused() -> None:
    def end(job: Job) -> JobResult:
        short = Embedding.of([0.6, 0.8], "float32", MODEL.id, MODEL.revision)
        result = done(job)
        is_text = isinstance(job, EmbedJob)
        return result.model_copy(update={"embeddings": (short,)}) if is_text else result

    with pytest.raises(EmbeddingMismatch, match="2 and 256 numbers"):
        rank(InProcess(answer=end), TEXT, [uri(0)])


def test_given_a_worker_that_cannot_match_then_the_texts_failure_is_raised() -> None:
    def end(job: Job) -> JobResult:
        error = JobError.of(JobFailed(ErrorCode.MODEL_LACKS_MATCHING))
        return done(job).model_copy(
            update={"state": JobState.FAILED, "error": error, "embeddings": None}
        )

    with pytest.raises(JobFailed) as caught:
        rank(InProcess(answer=end), TEXT, [uri(0)])
    assert caught.value.code is ErrorCode.MODEL_LACKS_MATCHING


def test_given_no_worker_then_the_wait_for_the_text_ends() -> None:
    class Idle(InProcess):
        def work(self, count: int) -> None:
            pass

    with pytest.raises(TimeoutError, match="has not ended in 0 s"):
        rank(Idle(), TEXT, [uri(0)], timeout_s=0.0)


def test_given_files_that_are_uploaded_then_both_passes_ask_for_the_copies(
    tmp_path: Any,
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    preparer = Preparer(upload=lambda path: f"s3://photos/{path.name}")
    service = InProcess()
    references = [Reference(f"{n}.jpg", f"{n}.jpg", tmp_path) for n in range(3)]

    ranking = Ranker(service, preparer=preparer).rank(TEXT, references)
    preparer.close()

    assert service.images == {f"s3://photos/{n}.jpg": 2 for n in range(3)}
    assert {one.image for one in ranking.best} == {"0.jpg", "1.jpg", "2.jpg"}


@pytest.mark.parametrize("k", [0, -1])
def test_given_no_place_to_fill_then_it_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        rank(InProcess(), TEXT, [], k)


class Forgetful(InProcess):
    """Answers with the same few vectors, and keeps no record of what was heard."""

    def submit_many(self, jobs: Iterable[Job]) -> None:
        self.store._entries.clear()
        super().submit_many(jobs)
        self.images.clear()
        self.answered.clear()


@cache
def of_64() -> JobResult:
    return done(EmbedChunk(images=tuple(uri(n) for n in range(64)), encoding="float16", job_id="x"))


def known(job: Job) -> JobResult:
    """What was said of the first 64 images is said of all: this test is of what asks."""
    if not isinstance(job, EmbedChunk):
        return done(job)
    items = (of_64().items or ())[: len(job.images)]
    return of_64().model_copy(update={"job_id": job.job_id, "items": items})


def test_given_many_images_from_a_generator_then_nothing_is_held_of_those_that_passed() -> None:
    held: list[int] = []
    count = 30_000

    def images() -> Iterator[str]:
        for number in range(count):
            if number in (count // 3, count - 1):
                held.append(len(gc.get_objects()))
            yield uri(number)

    ranking = rank(Forgetful(answer=known), TEXT, images(), 32)

    assert ranking.counts == {"succeeded": count}
    assert len(ranking.best) == 32
    assert held[1] - held[0] < 5_000  # a row each would be 20,000
