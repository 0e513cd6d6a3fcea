"""From a job and its framed pixels to the engine's answer, and which jobs share a batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from producer.contract import (
    CaptionFilter,
    CaptionJob,
    CaptionOptions,
    EmbedJob,
    ErrorCode,
    Job,
    JobFailed,
    MatchJob,
)
from tests.blip_checkpoints import BOTH, TINY, noise_images, write_random_checkpoint
from worker.asked import BatchKey
from worker.blip import CaptionOptions as EngineOptions
from worker.blip import Engine
from worker.blip.geometry import MODES
from worker.errors import Fault
from worker.models import Models

IMAGE = "https://example.com/a.png"
SIZES = [(200, 160), (400, 100), (60, 300), (150, 100)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("tiny")
    return Engine.load(write_random_checkpoint(folder, TINY, BOTH, seed=2, spread=3.0))


@pytest.fixture(scope="module")
def models(engine: Engine) -> Models:
    tasks: list[str] = list(BOTH)
    return Models(dict.fromkeys(tasks, engine), dict.fromkeys(tasks, "tiny"), EngineOptions)


def pixels(models: Models, job: Job, image: Image.Image) -> np.ndarray[Any, Any]:
    return models.plan(job).framing.frame(image)


@pytest.mark.parametrize(
    ("job", "key"),
    [
        (CaptionJob(image=IMAGE), BatchKey("caption", 3)),
        (CaptionJob(image=IMAGE, resolution=32), BatchKey("caption", 3)),
        (CaptionJob(image=IMAGE, resolution=64), BatchKey("caption", 3, resolution=64)),
        (CaptionJob(image=IMAGE, regions=((0, 0, 1, 1),)), BatchKey("caption", 3)),
        (MatchJob(image=IMAGE, texts=("a",), resolution=64), BatchKey("match", resolution=64)),
        (EmbedJob(image=IMAGE, resolution=64), BatchKey("embed", resolution=64)),
        (CaptionJob(image=IMAGE, filter=CaptionFilter()), BatchKey("caption", 3, weighed=True)),
        (CaptionJob(image=IMAGE, embed="list"), BatchKey("caption", 3, weighed=True)),
        *((CaptionJob(image=IMAGE, mode=mode), BatchKey("caption", 3)) for mode in MODES),
    ],
)
def test_given_a_job_its_batch_is_told_by_task_beams_and_resolution_alone(
    models: Models, job: Job, key: BatchKey
) -> None:
    assert models.items(job, [0])[0] == key
    assert len(models.items(job, [0])[1]) == 1


def test_given_several_regions_then_each_is_an_item(models: Models) -> None:
    regions = ((0, 0, 1, 1), (1, 1, 2, 2))
    assert len(models.items(CaptionJob(image=IMAGE, regions=regions), [0, 1])[1]) == 2


@pytest.mark.parametrize("resolution", [None, 64])
def test_given_every_mode_and_shape_in_one_batch_each_is_captioned_as_alone(
    models: Models, engine: Engine, resolution: int | None
) -> None:
    images = [noise_images(1, seed, size)[0] for seed, size in enumerate(SIZES)]
    jobs = [
        (CaptionJob(image=IMAGE, mode=mode, resolution=resolution), image)
        for mode in MODES
        for image in images
    ]
    batch = [models.items(job, [pixels(models, job, image)]) for job, image in jobs]
    [key] = {key for key, _ in batch}
    found = models.run(key, [payload for _, [payload] in batch])
    for (job, image), row in zip(jobs, found, strict=True):
        [caption] = models.answer(job, [row]).captions or ()
        [[alone]] = engine.caption(image, mode=job.mode, resolution=resolution)
        assert caption.text == alone.text
        assert caption.logprob == pytest.approx(alone.logprob, abs=1e-4)


def test_given_match_jobs_of_several_modes_each_is_matched_as_alone(
    models: Models, engine: Engine
) -> None:
    image = noise_images(1, 3, (150, 100))[0]
    jobs = [MatchJob(image=IMAGE, texts=("a b", "word7"), mode=mode) for mode in MODES]
    batch = [models.items(job, [pixels(models, job, image)]) for job in jobs]
    found = models.run(batch[0][0], [payload for _, [payload] in batch])
    for job, row in zip(jobs, found, strict=True):
        [alone] = engine.match(image, list(job.texts), mode=job.mode)
        expected = [match.itm_logit for match in alone]
        given = sorted(models.answer(job, [row]).matches or (), key=lambda match: match.index)
        assert [match.itm_logit for match in given] == pytest.approx(expected, abs=1e-4)
        assert [match.text for match in given] == list(job.texts)


def test_given_a_resolution_the_model_cannot_take_the_job_is_invalid_and_says_what_it_can(
    models: Models,
) -> None:
    with pytest.raises(JobFailed, match="resolution must be 32 to 64 here, not 96") as failure:
        models.plan(CaptionJob(image=IMAGE, resolution=96))
    assert failure.value.code is ErrorCode.JOB_INVALID


def test_given_a_task_that_is_not_served_the_fault_has_its_code(engine: Engine) -> None:
    models = Models({"match": engine}, {"match": "tiny"}, EngineOptions)
    with pytest.raises(Fault) as fault:
        models.plan(CaptionJob(image=IMAGE))
    assert fault.value.code is ErrorCode.MODEL_LACKS_CAPTIONING


def test_given_the_bundled_checkpoint_its_framing_is_its_preprocessors() -> None:
    bundled = Path(__file__).parents[2] / "worker" / "checkpoints" / "scenes"
    framing = Engine.load(bundled).framing("pad", 144)
    assert (framing.size, framing.patch_size, framing.resample) == ((144, 144), 12, 3)
    assert framing.fill == (123, 117, 104)


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
    assert models.items(job, [])[0] == key


@pytest.mark.parametrize(("style", "whole"), [(None, False), ("short", True)])
def test_given_a_style_then_the_engine_is_asked_for_whole_words(
    models: Models, style: Any, whole: bool
) -> None:
    job = CaptionJob(image=IMAGE, options=CaptionOptions(style=style))
    _, [asked] = models.items(job, [0])
    assert asked.wanted.whole_words is whole


def test_given_jobs_of_one_key_when_run_then_the_contract_has_all_that_the_engine_says(
    models: Models,
) -> None:
    options = [
        CaptionOptions(do_sample=True, num_return_sequences=3, seed=5, top_k=3, prefix="a b"),
        CaptionOptions(do_sample=True, num_return_sequences=3, max_chars=20, bad_words=("c",)),
    ]
    images = noise_images(2)
    jobs = [CaptionJob(image=IMAGE, options=row) for row in options]
    items = [
        models.items(job, [pixels(models, job, image)])
        for job, image in zip(jobs, images, strict=True)
    ]
    rows = models.run(items[0][0], [payload for _, [payload] in items])
    answers = [
        models.answer(job, [row]).captions or () for job, row in zip(jobs, rows, strict=True)
    ]
    for row, image, answer in zip(options, images, answers, strict=True):
        seed = answer[0].seed
        assert row.seed in (seed, None)
        again = EngineOptions(**row.model_dump(exclude={"style"}) | {"seed": seed})
        [expected] = models.engine("caption").caption(image, again)
        assert [caption.text for caption in answer] == [one.text for one in expected]
        for caption, one in zip(answer, expected, strict=True):
            assert (caption.count, caption.finish_reason) == (one.count, one.finish_reason)
            assert caption.score == pytest.approx(one.score, abs=1e-4)
            assert caption.processed_token_logprobs == pytest.approx(
                one.processed_token_logprobs, abs=1e-4
            )
