"""From the contract's jobs to the engine's calls, and back."""

from typing import Any

import pytest

from producer.contract import CaptionJob, CaptionOptions, MatchJob
from tests.blip_checkpoints import BOTH, TINY, noise_images, write_random_checkpoint
from worker.blip import CaptionOptions as EngineOptions
from worker.blip import Engine
from worker.models import BatchKey, Models

IMAGE = "s3://photos/cat.jpg"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = write_random_checkpoint(tmp_path_factory.mktemp("tiny"), TINY, BOTH, spread=3.0)
    engine = Engine.load(folder)
    return Models(
        {"caption": engine, "match": engine}, {"caption": "t", "match": "t"}, EngineOptions
    )


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, BatchKey("caption", 3, 1)),
        ({"num_beams": 1, "prompt": "a"}, BatchKey("caption", 1, 1)),
        ({"do_sample": True, "temperature": 0.5, "seed": 3}, BatchKey("caption", 1, 1)),
        ({"do_sample": True, "num_return_sequences": 4}, BatchKey("caption", 1, 4)),
        ({"num_beams": 4, "num_return_sequences": 4}, BatchKey("caption", 4, 1)),
    ],
)
def test_given_a_job_then_its_key_holds_what_changes_the_computations_shape(
    models: Models, options: dict[str, Any], key: BatchKey
) -> None:
    job = CaptionJob(image=IMAGE, options=CaptionOptions(**options))
    assert models.item(job, None)[0] == key
    assert models.item(MatchJob(image=IMAGE, texts=("a",)), None)[0] == BatchKey("match")


def test_given_jobs_of_one_key_when_run_then_the_contract_has_all_that_the_engine_says(
    models: Models,
) -> None:
    options = [
        CaptionOptions(do_sample=True, num_return_sequences=3, seed=5, top_k=3, prefix="a b"),
        CaptionOptions(do_sample=True, num_return_sequences=3, max_chars=20, bad_words=("c",)),
    ]
    images = noise_images(2)
    items = [
        models.item(CaptionJob(image=IMAGE, options=row), image)
        for row, image in zip(options, images, strict=True)
    ]
    answers = models.run(items[0][0], [payload for _, payload in items])
    for row, image, answer in zip(options, images, answers, strict=True):
        seed = answer[0].seed
        assert row.seed in (seed, None)
        again = EngineOptions(**row.model_dump() | {"seed": seed})
        [expected] = models.engine("caption").caption(image, again)
        assert [caption.text for caption in answer] == [one.text for one in expected]
        for caption, one in zip(answer, expected, strict=True):
            assert (caption.count, caption.finish_reason) == (one.count, one.finish_reason)
            assert caption.score == pytest.approx(one.score, abs=1e-4)
            assert caption.processed_token_logprobs == pytest.approx(
                one.processed_token_logprobs, abs=1e-4
            )
