"""The cache of results, on a real Redis: what is the same, and what is never kept."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import redis
from typer.testing import CliRunner

from producer.callback import Callback
from producer.contract import (
    Caption,
    CaptionJob,
    CaptionOptions,
    ExplainOptions,
    ImageFacts,
    Match,
    MatchJob,
    ModelFacts,
    RegionCaptions,
)
from producer.embedded import RedisServer
from worker import cli
from worker.answer import Answer
from worker.asked import BatchKey, Plan
from worker.batcher import Batcher
from worker.blip.framing import Framing
from worker.image import Decoded
from worker.pipeline import Pipeline
from worker.result_cache import ResultCache, read_counts

FACTS = ImageFacts(format="PNG", width=4, height=3, bytes=3, sha256="0" * 64)
PIXELS = np.zeros((2, 2, 3), np.uint8)
FILES = {"https://a.example/1.png": b"one", "https://b.example/1.png": b"one", "s3://b/2": b"two"}
JOB = CaptionJob(image="https://a.example/1.png")


def caption(text: str) -> Caption:
    return Caption(
        text=text, tokens=("a",), token_logprobs=(-0.5,), processed_token_logprobs=(-0.5,),
        logprob=-0.5, mean_logprob=-0.5, score=-0.5, finish_reason="stop",
    )  # fmt: skip


class Models:
    """Says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def plan(self, _: Any) -> Plan:
        return Plan(Framing("stretch", (2, 2), 1, 3, (0, 0, 0)))

    def items(self, job: Any, images: Sequence[Any], packs: Any) -> tuple[BatchKey, list[Any]]:
        return BatchKey(job.task), [job for _ in images]

    def run(self, _: BatchKey, jobs: Sequence[Any]) -> list[Any]:
        time.sleep(0.01)
        self.asked += len(jobs)
        return list(jobs)

    def answer(self, job: Any, _: Sequence[Any], image: Any, packs: Any) -> Answer:
        if job.task == "match":
            return Answer(
                matches=tuple(
                    Match(text=text, itm_probability=0.5, itm_logit=0.0, itc_cosine=0.1)
                    for text in job.texts
                )
            )
        captions = (caption(f"answer {self.asked}"),)
        if job.regions:
            return Answer(
                regions=tuple(RegionCaptions(box=b, captions=captions) for b in job.regions)
            )
        return Answer(captions=captions)


class World:
    def __init__(self, url: str, revision: str = "1", ttl_s: float = 60, seen_by: str = "") -> None:
        self.models = Models()
        self.decoded = 0
        self.client: redis.Redis = redis.Redis.from_url(url, decode_responses=True)
        facts = ModelFacts(id="blip", revision=revision, dtype="float32")
        self.cache = ResultCache(self.client, ttl_s, lambda *_: facts.model_dump(), seen_by)
        self.batcher: Batcher[BatchKey] = Batcher(self.models.run, max_batch=8, max_wait_s=0)
        self.pipeline = Pipeline(
            lambda uri, _: FILES[uri],
            self._decode,
            self.models,  # type: ignore[arg-type]
            self.batcher,
            fetch_timeout_s=5,
            infer_timeout_s=5,
            engine_errors={},
            cache=self.cache,
        )

    def _decode(self, _data: bytes, _framing: Any, regions: Any) -> Decoded:
        self.decoded += 1
        return Decoded((PIXELS,) * len(regions or [0]), FACTS)

    def close(self) -> None:
        self.batcher.close(5)
        self.cache.close()


@pytest.fixture
def world(redis_server: RedisServer) -> Iterator[World]:
    made = World(redis_server.url)
    yield made
    made.close()


def test_given_the_same_file_at_another_place_then_neither_decoder_nor_device_is_asked(
    world: World, redis_server: RedisServer
) -> None:
    first = world.pipeline.run(JOB)
    second = world.pipeline.run(JOB.model_copy(update={"image": "https://b.example/1.png"}))
    assert (second.answer, second.image) == (first.answer, first.image)
    assert (world.models.asked, world.decoded) == (1, 1)
    assert second.timings.infer_ms == 0
    counts = read_counts(redis_server.url)
    assert (counts["hits"], counts["misses"]) == (1, 1)
    assert counts["saved_device_ms"] >= 10


def test_given_another_sender_then_what_was_answered_before_is_theirs_as_well(
    world: World,
) -> None:
    world.pipeline.run(JOB)
    told = Callback(url="https://c.example/", secret_id="k")
    for change in ({"owner": "shop"}, {"batch_id": "b"}, {"callback": told}, {"lane": "bulk"}):
        world.pipeline.run(JOB.model_copy(update=change))
    assert world.models.asked == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(JOB.model_copy(update={"explain": ExplainOptions(inline=True)}), id="maps"),
        pytest.param(JOB.model_copy(update={"image": "s3://b/2"}), id="another file"),
        pytest.param(
            JOB.model_copy(update={"options": CaptionOptions(num_beams=5)}), id="other options"
        ),
        pytest.param(JOB.model_copy(update={"regions": ((0, 0, 1, 1),)}), id="a region"),
        pytest.param(JOB.model_copy(update={"mode": "pad"}), id="another mode"),
        pytest.param(JOB.model_copy(update={"resolution": 576}), id="another resolution"),
        pytest.param(MatchJob(image=JOB.image, texts=("a cat",)), id="another task"),
    ],
)
def test_given_anything_else_that_was_asked_then_the_device_is_asked(
    world: World, other: Any
) -> None:
    world.pipeline.run(JOB)
    for _ in range(2):
        world.pipeline.run(other)
    assert world.models.asked == 2


@pytest.mark.parametrize("change", [{"revision": "2"}, {"seen_by": "drop off"}])
def test_given_other_weights_or_another_way_of_seeing_then_the_device_is_asked(
    world: World, redis_server: RedisServer, change: dict[str, str]
) -> None:
    world.pipeline.run(JOB)
    other = World(redis_server.url, **change)  # type: ignore[arg-type]
    other.pipeline.run(JOB)
    other.close()
    assert other.models.asked == 1


@pytest.mark.parametrize(
    "job",
    [
        MatchJob(image=JOB.image, texts=("a cat", "a dog")),
        JOB.model_copy(update={"regions": ((0, 0, 1, 1), (1, 1, 2, 2))}),
        JOB.model_copy(update={"options": CaptionOptions(do_sample=True, num_beams=1, seed=3)}),
    ],
)
def test_given_a_job_of_any_kind_then_its_answer_comes_back_as_it_was(
    world: World, job: Any
) -> None:
    first = world.pipeline.run(job)
    asked = world.models.asked
    assert world.pipeline.run(job).answer == first.answer
    assert world.models.asked == asked


def test_given_samples_without_a_seed_then_each_is_drawn_anew(world: World) -> None:
    job = JOB.model_copy(update={"options": CaptionOptions(do_sample=True, num_beams=1)})
    for _ in range(2):
        world.pipeline.run(job)
    assert world.models.asked == 2
    assert world.client.dbsize() == 0


def test_given_an_answer_whose_time_is_over_or_that_cannot_be_read_then_the_device_is_asked(
    redis_server: RedisServer,
) -> None:
    world = World(redis_server.url, ttl_s=0.05)
    world.pipeline.run(JOB)
    time.sleep(0.1)
    world.pipeline.run(JOB)
    [key] = list(world.client.scan_iter("captionq:cache:*"))
    world.client.set(key, "{}")
    world.pipeline.run(JOB)
    world.close()
    assert world.models.asked == 3


def test_given_no_redis_then_jobs_run_as_without_a_cache() -> None:
    world = World("redis://127.0.0.1:1/0")
    assert world.pipeline.run(JOB).answer
    world.close()


def test_given_counts_when_asked_for_then_they_are_printed(
    world: World, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        world.pipeline.run(JOB)
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", redis_server.url)
    result = CliRunner().invoke(cli.cli, ["cache-counts"])
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)
    assert (counts["hits"], counts["misses"]) == (2, 1)
