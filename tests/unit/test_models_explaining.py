"""Where the model looked, as a worker says it: on the original image, for what was really said."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from producer.contract import (
    CaptionFilter,
    CaptionJob,
    CaptionOptions,
    ErrorCode,
    ExplainJob,
    ExplainOptions,
    ImageFacts,
    ImageJob,
    JobFailed,
    MatchJob,
    WordsExplained,
)
from tests.blip_checkpoints import BOTH, TINY, noise_images, write_random_checkpoint
from worker.answer import Answer
from worker.blip import CaptionOptions as EngineOptions
from worker.blip import Engine
from worker.models import TOKENS_OF_AN_IMAGE, Models

IMAGE = "https://example.com/a.png"
WIDTH, HEIGHT = 150, 60
METHODS = ("attention", "rollout", "gradcam")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("tiny")
    return Engine.load(write_random_checkpoint(folder, TINY, BOTH, seed=2, spread=3.0))


@pytest.fixture(scope="module")
def models(engine: Engine) -> Models:
    tasks: list[str] = list(BOTH)
    return Models(dict.fromkeys(tasks, engine), dict.fromkeys(tasks, "tiny"), EngineOptions)


def picture() -> Image.Image:
    [image] = noise_images(1, 5, (WIDTH, HEIGHT))
    return image


def answered(models: Models, job: ImageJob) -> Answer:
    image = picture()
    key, items = models.items(job, [models.plan(job).framing.frame(image)])
    facts = ImageFacts(format="PNG", width=WIDTH, height=HEIGHT, bytes=1, sha256="0" * 64)
    return models.answer(job, models.run(key, items), facts)


def on_the_image(found: WordsExplained) -> None:
    for word in found.words:
        x, y = word.peak
        left, top, right, bottom = word.box
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
        assert 0 <= left < right <= WIDTH
        assert 0 <= top < bottom <= HEIGHT
        assert 0 <= word.entropy <= np.log(found.grid[0] * found.grid[1]) + 1e-6
        assert word.coverage == pytest.approx((right - left) * (bottom - top) / (WIDTH * HEIGHT))


@pytest.mark.parametrize("mode", ["stretch", "pad", "crop", "native"])
@pytest.mark.parametrize("method", METHODS)
def test_given_captions_then_each_has_its_words_with_places_on_the_original(
    models: Models, engine: Engine, mode: Any, method: Any
) -> None:
    options = CaptionOptions(num_beams=2, num_return_sequences=2, max_new_tokens=6)
    how = ExplainOptions(method=method)
    answer = answered(models, CaptionJob(image=IMAGE, options=options, mode=mode, explain=how))
    captions = answer.captions or ()
    assert len(captions) == 2
    for caption in captions:
        found = caption.explanation
        assert found is not None
        assert (found.text, found.method) == (caption.text, method)
        assert [word.text for word in found.words] == caption.text.split()
        on_the_image(found)
    assert answer.fields.keys() == {"captions"}


def test_given_a_caption_job_then_its_maps_are_the_engines_own(
    models: Models, engine: Engine
) -> None:
    options = CaptionOptions(num_beams=1, max_new_tokens=6)
    answer = answered(models, CaptionJob(image=IMAGE, options=options, explain=ExplainOptions()))
    [captions] = engine.caption(picture(), EngineOptions(num_beams=1, max_new_tokens=6))
    [[expected]] = engine.explain(picture(), [captions])
    assert answer.explained is not None
    [found] = answer.explained.explanations
    assert found.maps == pytest.approx(expected.maps, abs=1e-5)
    [caption] = answer.captions or ()
    words = caption.explanation.words if caption.explanation else ()
    assert [word.logprob for word in words] == pytest.approx(
        [word.logprob for word in expected.words], abs=1e-4
    )


def test_given_a_filter_as_well_then_each_caption_keeps_its_own_explanation(
    models: Models,
) -> None:
    options = CaptionOptions(num_beams=3, num_return_sequences=3, max_new_tokens=6)
    rules = CaptionFilter(min_itm_probability=None)
    job = CaptionJob(image=IMAGE, options=options, filter=rules, explain=ExplainOptions())
    captions = answered(models, job).captions or ()
    assert len({caption.text for caption in captions}) == 3
    assert [caption.explanation.text for caption in captions if caption.explanation] == [
        caption.text for caption in captions
    ]


def test_given_matches_then_each_text_keeps_its_own_explanation_though_they_are_ranked(
    models: Models,
) -> None:
    texts = ("word1 word2", "word7", "word3 word4 word5")
    answer = answered(models, MatchJob(image=IMAGE, texts=texts, explain=ExplainOptions()))
    matches = answer.matches or ()
    assert {match.text for match in matches} == set(texts)
    for match in matches:
        assert match.explanation is not None
        assert match.explanation.text == match.text
        assert [word.text for word in match.explanation.words] == match.text.split()
        assert all(word.logprob is None for word in match.explanation.words)
        on_the_image(match.explanation)


def test_given_texts_then_an_explain_job_has_an_explanation_of_each_in_order(
    models: Models,
) -> None:
    texts = ("word1 word2", "word7")
    answer = answered(models, ExplainJob(image=IMAGE, texts=texts))
    found = answer.explanations or ()
    assert [one.text for one in found] == list(texts)
    assert [len(one.words) for one in found] == [2, 1]
    for one in found:
        on_the_image(one)


def test_given_raw_then_the_file_has_every_layer_and_head_and_where_patches_lie(
    models: Models, engine: Engine
) -> None:
    how = ExplainOptions(raw=True, sink="file:///maps/")
    job = ExplainJob(image=IMAGE, texts=("word1 word2",), mode="pad", explain=how)
    explained = answered(models, job).explained
    assert explained is not None
    [(name, data)] = explained.files("j")
    assert name == "j.npz"
    with np.load(io.BytesIO(data)) as file:
        rows, columns = file["grid"]
        assert file["maps"].shape == (2, rows, columns)
        assert file["raw"].ndim == 5
        assert file["raw"].shape[-2:] == (rows, columns)
        assert list(file["size"]) == [WIDTH, HEIGHT]


def test_given_a_sink_then_each_explanation_says_which_file_has_its_maps(models: Models) -> None:
    how = ExplainOptions(sink="s3://maps/a/")
    options = CaptionOptions(num_beams=3, num_return_sequences=3, max_new_tokens=6)
    rules = CaptionFilter(min_itm_probability=None)
    job = CaptionJob(image=IMAGE, job_id="j", options=options, filter=rules, explain=how)
    answer = answered(models, job)
    assert answer.explained is not None
    files = dict(answer.explained.files("j"))
    assert list(files) == ["j.npz", "j.caption-2.npz", "j.caption-3.npz"]
    for caption in answer.captions or ():
        assert caption.explanation is not None
        name = str(caption.explanation.maps).removeprefix("s3://maps/a/")
        with np.load(io.BytesIO(files[name])) as file:
            assert str(file["text"]) == caption.text


def test_given_jobs_that_differ_in_where_maps_go_then_they_share_a_batch(models: Models) -> None:
    jobs = [
        CaptionJob(image=IMAGE, explain=ExplainOptions(sink=sink))
        for sink in (None, "s3://maps/a/")
    ]
    keys = {models.items(job, [0])[0] for job in jobs}
    assert len(keys) == 1
    assert keys != {models.items(CaptionJob(image=IMAGE), [0])[0]}


@pytest.mark.parametrize(
    "job",
    [
        lambda: CaptionJob(image=IMAGE, regions=((0, 0, 1, 1),), explain=ExplainOptions()),
        lambda: MatchJob(image=IMAGE, texts=("a",) * 17, explain=ExplainOptions()),
        lambda: ExplainOptions(raw=True),
        lambda: ExplainOptions(pictures=True),
        lambda: ExplainOptions(method="occlusion"),  # type: ignore[arg-type]
        lambda: ExplainOptions(sink="s3://nowhere"),
        lambda: ExplainJob(image=IMAGE, texts=()),
    ],
)
def test_given_what_cannot_be_explained_then_the_contract_refuses_it(job: Any) -> None:
    with pytest.raises(ValidationError):
        job()


@pytest.mark.parametrize("how", [ExplainOptions(layers=(99,)), ExplainOptions(heads=(99,))])
def test_given_a_layer_or_head_that_is_not_there_then_the_job_is_invalid(
    models: Models, how: ExplainOptions
) -> None:
    job = CaptionJob(image=IMAGE, explain=how)
    with pytest.raises(JobFailed, match=r"layers|heads") as failure:
        models.plan(job)
    assert failure.value.code is ErrorCode.JOB_INVALID


def test_given_a_text_that_the_model_has_no_room_for_then_the_job_is_invalid(
    models: Models, tmp_path: Path
) -> None:
    job = ExplainJob(image=IMAGE, texts=("a " * 600,))
    with pytest.raises(JobFailed, match="tokens"):
        models.items(job, [0])


@pytest.mark.parametrize(("method", "weight"), [("attention", 1), ("gradcam", 2), ("rollout", 3)])
def test_given_a_method_that_costs_more_then_it_takes_more_of_a_batch(
    models: Models, method: Any, weight: int
) -> None:
    how = ExplainOptions(method=method)
    for job in (
        CaptionJob(image=IMAGE, explain=how),
        MatchJob(image=IMAGE, texts=("a",), explain=how),
        ExplainJob(image=IMAGE, texts=("a",), explain=how),
    ):
        [item] = models.items(job, [0])[1]
        assert item.weight == weight


def test_given_long_texts_then_an_explain_job_takes_more_of_a_batch(models: Models) -> None:
    job = ExplainJob(image=IMAGE, texts=("a " * 30,) * 16)
    tokens = 16 * 32  # with [CLS] and [SEP]
    [item] = models.items(job, [0])[1]
    assert item.weight == 1 + tokens // TOKENS_OF_AN_IMAGE == 2


@pytest.mark.parametrize(
    "job",
    [
        lambda how: CaptionJob(
            image=IMAGE,
            options=CaptionOptions(num_beams=2, num_return_sequences=2, max_new_tokens=8),
            explain=how,
        ),
        lambda how: MatchJob(image=IMAGE, texts=("a " * 6, "a " * 6), explain=how),
        lambda how: ExplainJob(image=IMAGE, texts=("a " * 6, "a " * 6), explain=how),
    ],
)
def test_given_raw_maps_then_they_count_in_a_batch_and_very_large_ones_are_refused(
    models: Models, monkeypatch: pytest.MonkeyPatch, job: Any
) -> None:
    asked = job(ExplainOptions(raw=True, sink="file:///maps/"))
    layers, heads, tokens, patches = 2, 4, 16, 16
    numbers = layers * heads * tokens * patches
    monkeypatch.setattr("worker.models.RAW_OF_AN_IMAGE", numbers // 3)
    monkeypatch.setattr("worker.models.MOST_RAW", numbers)
    [item] = models.items(asked, [0])[1]
    assert item.weight == 1 + 3
    [item] = models.items(job(ExplainOptions()), [0])[1]
    assert item.weight == 1
    monkeypatch.setattr("worker.models.MOST_RAW", numbers - 1)
    with pytest.raises(JobFailed, match="raw") as failure:
        models.items(asked, [0])
    assert failure.value.code is ErrorCode.JOB_INVALID


@pytest.mark.parametrize("mode", ["stretch", "pad", "crop", "native"])
def test_given_inline_then_every_words_map_is_in_the_result_and_is_the_engines_own(
    models: Models, mode: Any
) -> None:
    options = CaptionOptions(num_beams=2, num_return_sequences=2, max_new_tokens=6)
    how = ExplainOptions(inline=True)
    answer = answered(models, CaptionJob(image=IMAGE, options=options, mode=mode, explain=how))
    assert answer.explained is not None
    captions = answer.captions or ()
    assert len(captions) == 2
    for caption, engines in zip(captions, answer.explained.explanations, strict=True):
        found = caption.explanation
        assert found is not None
        assert found.map_grid is not None
        for word, shares in zip(found.words, engines.maps, strict=True):
            cells = np.frombuffer(word.cells(), np.uint8).reshape(found.map_grid)
            if found.map_grid == found.grid:
                assert np.abs(cells / 255 - shares / shares.max()).max() < 0.51 / 255


def test_given_jobs_that_differ_in_inline_maps_then_they_share_a_batch(models: Models) -> None:
    keys = {
        models.items(CaptionJob(image=IMAGE, explain=ExplainOptions(inline=inline)), [0])[0]
        for inline in (False, True)
    }
    assert len(keys) == 1
