"""`captionq index` and `captionq search` against a worker without a model: codes and sentences."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from producer.cli import app
from producer.contract import (
    EmbedJob,
    ErrorCode,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    ModelFacts,
    RankChunk,
    utcnow,
)
from producer.embedded import RedisServer
from producer.exits import JOB_FAILED, TIMED_OUT, USAGE
from producer.index.place import Place
from producer.index.table import VectorIndex
from tests.index_entries import MODEL, embedding, entry, item, vector
from tests.stand_in_worker import StandInWorker

Captionq = Callable[..., Result]


@pytest.fixture
def captionq(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Captionq:
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", redis_server.url)
    monkeypatch.setenv("CAPTIONQ_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def index(tmp_path: Path) -> VectorIndex:
    """That of the home, with five rows."""
    index = VectorIndex(Place(str(tmp_path / "home" / "index")))
    index.upsert([entry(n) for n in range(5)])
    return index


def ended(job: Job, **fields: object) -> JobResult:
    named = {"job_id": job.job_id, "task": job.task, "attempts": 1, "finished_at": utcnow()}
    return JobResult(**(named | {"state": JobState.SUCCEEDED} | fields))  # type: ignore[arg-type]


def answering(revision: str = MODEL[1]) -> Callable[[Job], JobResult]:
    """Every text and image lies where the third row does; nothing can be matched."""

    def end(job: Job) -> JobResult:
        if isinstance(job, EmbedJob):
            return ended(job, embeddings=(embedding(vector(3), revision=revision),))
        error = JobError.of(JobFailed(ErrorCode.MODEL_LACKS_MATCHING))
        return ended(job, state=JobState.FAILED, error=error)

    return end


def test_given_an_index_then_a_search_prints_the_nearest_first(
    captionq: Captionq, index: VectorIndex, redis_server: RedisServer, tmp_path: Path
) -> None:
    jobs: list[Job] = []

    def end(job: Job) -> JobResult:
        jobs.append(job)
        return answering()(job)

    (tmp_path / "cat.png").write_bytes(b"")
    with StandInWorker(redis_server.url, end):
        by_text = captionq("search", "a cat", "-k", "2", "--json")
        by_image = captionq("search", "--image", str(tmp_path / "cat.png"))

    assert by_text.exit_code == 0, by_text.output
    hits = [json.loads(line) for line in by_text.stdout.splitlines()]
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert hits[0]["image_ref"] == "s3://photos/3.png"
    assert hits[0]["itc_cosine"] == pytest.approx(1)
    assert "s3://photos/3.png" in by_image.stdout
    assert isinstance(jobs[0], EmbedJob)
    assert isinstance(jobs[1], EmbedJob)
    assert (jobs[0].texts, jobs[0].lane) == (("a cat",), "interactive")
    assert jobs[1].image == (tmp_path / "cat.png").as_uri()


def test_given_many_candidates_then_they_are_weighed_in_chunks_and_only_k_are_printed(
    captionq: Captionq, index: VectorIndex, redis_server: RedisServer
) -> None:
    index.upsert([entry(n) for n in range(150)])
    asked: list[RankChunk] = []

    def end(job: Job) -> JobResult:
        from producer.contract import Ranked

        if not isinstance(job, RankChunk):
            return answering()(job)
        asked.append(job)
        ranking = tuple(
            Ranked(
                index=place,
                itc_cosine=0.0,
                itm_probability=0.5,
                itm_logit=(score := float(ref.rpartition("/")[2].removesuffix(".png"))),
                score=score,
            )
            for place, ref in enumerate(job.images)
        )
        return ended(job, ranking=ranking, items=())

    with StandInWorker(redis_server.url, end):
        done = captionq("search", "a cat", "-k", "3", "--rerank", "--candidates", "150", "--json")

    assert done.exit_code == 0, done.output
    refs = [json.loads(line)["image_ref"] for line in done.stdout.splitlines()]
    assert refs == [f"s3://photos/{n}.png" for n in (149, 148, 147)]
    assert sorted(len(job.images) for job in asked) == [22, 64, 64]
    assert all(job.k == len(job.images) and job.lane == "interactive" for job in asked)


def test_given_workers_that_are_being_replaced_then_no_search_is_reranked_by_the_others(
    captionq: Captionq, index: VectorIndex, redis_server: RedisServer
) -> None:
    index.upsert([entry(n) for n in range(3)])

    def end(job: Job) -> JobResult:
        if not isinstance(job, RankChunk):
            return answering()(job)
        newer = ModelFacts(id=MODEL[0], revision="newer", dtype="float32")
        return ended(job, ranking=(), items=(), model=newer)

    with StandInWorker(redis_server.url, end):
        done = captionq("search", "a cat", "--rerank")

    assert done.exit_code == USAGE
    assert f"of {MODEL[0]} at {MODEL[1]}, and were weighed by {MODEL[0]} at newer" in done.stderr


@pytest.mark.parametrize(
    ("words", "revision", "code", "sentence"),
    [
        (["search"], None, USAGE, "words, or --image"),
        (["search", "a", "--image", "b.png"], None, USAGE, "one of the two"),
        (["search", "--image", "s3://b/a.png", "--rerank"], None, USAGE, "goes with TEXT"),
        (["search", "--image", "nowhere.png"], None, USAGE, "There is no file"),
        (["search", "a", "--index", "nowhere"], None, USAGE, "captionq index build"),
        (["search", "a", "--index", "https://a/"], None, USAGE, "s3://bucket/prefix/"),
        (["search", "a", "--timeout", "0.3"], None, TIMED_OUT, "Is a worker running?"),
        (["search", "a"], "r9", USAGE, "cannot be compared"),
        (["search", "a", "--rerank"], MODEL[1], JOB_FAILED, "model_lacks_matching"),
        (["index", "stats", "--index", "nowhere"], None, USAGE, "captionq index build"),
        (["index", "optimize", "--index", "nowhere"], None, USAGE, "captionq index build"),
        (["index", "add", "nowhere.jsonl"], None, USAGE, "no file of results"),
        (["index", "build", "nowhere.jpg"], None, USAGE, "There is no file"),
    ],
)
def test_given_what_cannot_be_done_then_one_sentence_says_why_and_the_code_says_of_what_kind(
    captionq: Captionq,
    index: VectorIndex,
    redis_server: RedisServer,
    words: list[str],
    revision: str | None,
    code: int,
    sentence: str,
) -> None:
    if revision is None:
        done = captionq(*words)
    else:
        with StandInWorker(redis_server.url, answering(revision)):
            done = captionq(*words)
    assert done.exit_code == code, done.output
    assert sentence in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_given_results_then_add_tells_what_it_added_and_what_it_left_out(
    captionq: Captionq, index: VectorIndex, tmp_path: Path
) -> None:
    items = [item(4), item(5), item(6, embeddings=None)]
    lines = [one.model_dump_json() for one in items]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{damaged"]))

    done = captionq("index", "add", str(tmp_path / "a.jsonl"))
    again = captionq("index", "add", str(tmp_path / "a.jsonl"), "--json")
    stats = captionq("index", "stats", "--json")
    words = captionq("index", "optimize")

    assert (done.exit_code, again.exit_code) == (JOB_FAILED, JOB_FAILED), "a row is unreadable"
    assert "2 rows added" in done.stderr
    assert "1 new, 1 in place of earlier ones" in done.stderr
    assert "left out: 1 without an embedding" in done.stderr
    assert "a.jsonl, row 4" in done.stderr
    document = json.loads(again.stdout)
    assert (document["new"], document["replaced"]) == (0, 2)
    assert document["left_out"] == {"without_embedding": 1, "unreadable": 1}
    assert json.loads(stats.stdout)["rows"] == 6
    assert "6 rows" in words.stdout
