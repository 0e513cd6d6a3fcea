"""What the matching model does in a worker: embed, rank, and weigh what another model captions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from producer.contract import (
    Caption,
    CaptionFilter,
    CaptionJob,
    CaptionOptions,
    EmbedJob,
    ErrorCode,
    ImageJob,
    JobFailed,
    MatchJob,
    RankJob,
)
from tests.blip_checkpoints import BOTH, TINY, noise_images, write_random_checkpoint
from worker.answer import Answer
from worker.asked import Asked, BatchKey
from worker.blip import CaptionOptions as EngineOptions
from worker.blip import Engine
from worker.calibration import Calibration, Figures, Platt
from worker.errors import Fault
from worker.models import Models

IMAGE = "https://example.com/a.png"
FIGURES = Figures(roc_auc=1, average_precision=1, calibration_error=0, log_loss=0)
CALIBRATION = Calibration(
    model_id="tiny",
    revision="1",
    position_zero="enc",
    parameters=Platt(slope=2.0, intercept=1.0),
    threshold=0.5,
    wanted_precision=0.95,
    pairs=10,
    held_out_pairs=10,
    before=FIGURES,
    after=FIGURES,
    precision=1,
    recall=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), TINY, BOTH, seed=2, spread=3.0)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("other"), TINY, BOTH, seed=3, spread=3.0)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.load(folder)


@pytest.fixture(scope="module")
def models(engine: Engine) -> Models:
    return serving(engine, engine)


def serving(
    captioner: Engine, matcher: Engine | None, calibration: Calibration | None = None
) -> Models:
    engines = {"caption": captioner} | ({"match": matcher} if matcher else {})
    return Models(engines, {task: f"my {task}" for task in engines}, EngineOptions, calibration)


def answered(models: Models, *jobs: ImageJob) -> list[Answer]:
    """The answers of one batch, a different image for each job."""
    images = noise_images(len(jobs), 5, (150, 100))
    key, items, owners = None, [], []
    for number, (job, image) in enumerate(zip(jobs, images, strict=True)):
        framed = (
            [] if getattr(job, "image", None) is None else [models.plan(job).framing.frame(image)]
        )
        key, own = models.items(job, framed)
        items += own
        owners += [number] * len(own)
    assert key is not None
    said = models.run(key, items)
    return [
        models.answer(job, [one for one, owner in zip(said, owners, strict=True) if owner == n])
        for n, job in enumerate(jobs)
    ]


def test_given_an_image_or_texts_then_their_embeddings_are_the_engines_and_say_whose_they_are(
    models: Models, engine: Engine
) -> None:
    [of_image] = answered(models, EmbedJob(image=IMAGE))
    [of_texts] = answered(models, EmbedJob(texts=("a b", "word7"), encoding="float32"))
    [image] = of_image.embeddings or ()
    texts = of_texts.embeddings or ()
    assert (image.model, image.revision) == ("my match", engine.revision)
    expected = engine.embed(noise_images(1, 5, (150, 100)))[0].tolist()
    assert image.values() == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(image.values()) == pytest.approx(1, abs=1e-5)
    assert [one.encoding for one in texts] == ["float32", "float32"]
    assert texts[1].values() == pytest.approx(engine.embed(texts=["word7"])[0].tolist(), abs=1e-5)
    [matched] = answered(models, MatchJob(image=IMAGE, texts=("a b", "word7")))
    for match in matched.matches or ():
        assert image.cosine(texts[match.index]) == pytest.approx(match.itc_cosine, abs=1e-4)


def test_given_texts_then_their_matches_come_best_first_by_the_papers_score(
    models: Models,
) -> None:
    texts = ("a b", "word7", "c", "word1 word2 word3")
    [answer] = answered(models, MatchJob(image=IMAGE, texts=texts))
    matches = answer.matches or ()
    assert sorted(match.index for match in matches) == [0, 1, 2, 3]
    assert all(match.text == texts[match.index] for match in matches)
    scores = [match.itm_logit + match.itc_cosine for match in matches]
    assert scores == sorted(scores, reverse=True) == [match.score for match in matches]


def test_given_jobs_of_either_position_zero_then_they_are_batched_apart_and_differ(
    models: Models, engine: Engine
) -> None:
    for choice in ("enc", "cls"):
        [answer] = answered(models, MatchJob(image=IMAGE, texts=("a b",), position_zero=choice))
        [[alone]] = engine.match(noise_images(1, 5, (150, 100)), ["a b"], choice)
        [match] = answer.matches or ()
        assert match.itm_logit == pytest.approx(alone.itm_logit, abs=1e-4)
    keys = [
        models.items(MatchJob(image=IMAGE, texts=("a",), position_zero=choice), [0])[0]
        for choice in ("enc", "cls")
    ]
    assert keys[0] != keys[1]


def test_given_many_texts_when_ranked_then_the_k_best_by_itc_come_by_score(
    models: Models, engine: Engine
) -> None:
    texts = tuple(f"word{n}" for n in range(12))
    [answer] = answered(models, RankJob(image=IMAGE, texts=texts, k=4))
    ranking = answer.ranking or ()
    [every] = engine.match(noise_images(1, 5, (150, 100)), list(texts))
    by_cosine = sorted(range(12), key=lambda n: -every[n].itc_cosine)[:4]
    assert {one.index for one in ranking} == set(by_cosine)
    by_score = sorted(by_cosine, key=lambda n: -(every[n].itm_logit + every[n].itc_cosine))
    assert [one.index for one in ranking] == by_score
    assert [one.text for one in ranking] == [texts[n] for n in by_score]


def test_given_a_calibration_then_matches_carry_what_it_says_unless_it_is_of_other_scores(
    engine: Engine,
) -> None:
    models = serving(engine, engine, CALIBRATION)
    [answer] = answered(models, MatchJob(image=IMAGE, texts=("a b", "word7")))
    for match in answer.matches or ():
        margin = np.log(match.itm_probability / (1 - match.itm_probability))
        expected = 1 / (1 + np.exp(-(2 * margin + 1)))
        assert match.calibrated_probability == pytest.approx(expected, abs=1e-3)
        assert match.decision == ("match" if expected >= 0.5 else "no_match")
    [answer] = answered(models, MatchJob(image=IMAGE, texts=("a",), position_zero="cls"))
    [match] = answer.matches or ()
    assert (match.calibrated_probability, match.decision) == (None, None)


def filtered(**rules: Any) -> CaptionJob:
    options = CaptionOptions(num_beams=4, num_return_sequences=4)
    return CaptionJob(image=IMAGE, options=options, filter=CaptionFilter(**rules))


def test_given_a_filter_then_candidates_are_ranked_by_itm_and_the_refused_come_last(
    models: Models, engine: Engine
) -> None:
    [plain] = answered(models, filtered(min_itm_probability=None, refuse_repetition=False))
    captions = plain.captions or ()
    assert len(captions) == 4
    [found] = engine.match(noise_images(1, 5, (150, 100)), [one.text for one in captions])
    assert [one.itm_probability for one in captions] == pytest.approx(
        [match.itm_probability for match in found], abs=1e-4
    )
    probabilities = [one.itm_probability or 0 for one in captions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert not any(one.rejected for one in captions)
    assert plain.abstained is False

    middle = (probabilities[1] + probabilities[2]) / 2
    [some] = answered(models, filtered(min_itm_probability=middle, refuse_repetition=False))
    assert [one.rejected for one in some.captions or ()] == [False, False, True, True]
    banned = captions[0].text.split()[0]
    [refused] = answered(models, filtered(min_itm_probability=1.0, banned_words=(banned,)))
    assert refused.abstained is True
    assert all(one.rejected for one in refused.captions or ())
    assert all("itm_probability" in one.reject_reasons for one in refused.captions or ())


def test_given_no_filter_then_captions_carry_no_weight(models: Models) -> None:
    [answer] = answered(models, CaptionJob(image=IMAGE))
    [caption] = answer.captions or ()
    assert isinstance(caption, Caption)
    assert (caption.itm_probability, caption.rejected, answer.abstained) == (None, None, None)


def passes_counted(*engines: Engine) -> list[int]:
    passes: list[int] = []
    for vision in {
        id(engine._modules.vision): engine._modules.vision for engine in engines
    }.values():
        vision.post_layernorm.register_forward_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize("shared", [True, False])
def test_given_two_checkpoints_then_one_pass_of_a_shared_vision_encoder_serves_both(
    folder: Path, other_folder: Path, shared: bool
) -> None:
    captioner = Engine.load(folder, tasks=["caption"])
    matcher = Engine.load(folder if shared else other_folder, tasks=["match"])
    alone = Engine.load(folder if shared else other_folder, tasks=["match"])
    models = serving(captioner, matcher)
    passes = passes_counted(captioner, matcher)
    job = filtered(min_itm_probability=None).model_copy(update={"embed": "list"})
    answers = answered(models, job, job)
    assert len(passes) == (1 if shared else 2)
    for answer, image in zip(answers, noise_images(2, 5, (150, 100)), strict=True):
        captions = answer.captions or ()
        [found] = alone.match(image, [one.text for one in captions])
        assert [one.itm_probability for one in captions] == pytest.approx(
            [match.itm_probability for match in found], abs=1e-4
        )
        [embedding] = answer.embeddings or ()
        assert embedding.values() == pytest.approx(alone.embed(image)[0].tolist(), abs=1e-4)
    facts = models.facts_of(job)
    assert (facts["model"].id, facts["match_model"].id) == ("my caption", "my match")


def test_given_no_matching_model_then_what_needs_one_fails_as_model_lacks_matching(
    engine: Engine,
) -> None:
    models = serving(engine, None)
    jobs: list[ImageJob] = [
        filtered(),
        CaptionJob(image=IMAGE, embed="list"),
        MatchJob(image=IMAGE, texts=("a",)),
        EmbedJob(image=IMAGE),
        EmbedJob(texts=("a",)),
        RankJob(image=IMAGE, texts=("a",)),
    ]
    for job in jobs:
        with pytest.raises(Fault) as fault:
            models.plan(job)
        assert fault.value.code is ErrorCode.MODEL_LACKS_MATCHING


def test_given_a_model_without_calibration_then_a_filter_that_needs_one_is_invalid(
    models: Models, engine: Engine
) -> None:
    job = filtered(min_calibrated_probability="threshold")
    with pytest.raises(JobFailed, match="not calibrated") as failure:
        models.plan(job)
    assert failure.value.code is ErrorCode.JOB_INVALID
    calibrated = serving(engine, engine, CALIBRATION)
    [answer] = answered(calibrated, job)
    assert all(one.calibrated_probability is not None for one in answer.captions or ())


LONG = " ".join(["word7"] * 40)  # [CLS], 40 tokens, [SEP]


def test_given_texts_that_cost_more_than_images_then_they_weigh_on_the_batch_and_are_split(
    models: Models,
) -> None:
    _, [short] = models.items(MatchJob(image=IMAGE, texts=("a",) * 64), [0])
    assert short.weight == 1
    _, [long] = models.items(MatchJob(image=IMAGE, texts=(LONG,) * 100), [0])
    assert long.weight == 1 + 4_200 // 500
    _, parts = models.items(MatchJob(image=IMAGE, texts=(LONG,) * 250), [0])
    assert [len(part.wanted) for part in parts] == [195, 55]
    _, parts = models.items(EmbedJob(texts=(LONG,) * 250), [])
    assert [len(part.wanted) for part in parts] == [195, 55]


def test_given_a_job_of_several_parts_then_its_answer_is_as_one(models: Models) -> None:
    texts = tuple(f"word{n % 40} {LONG}" for n in range(250))
    [split] = answered(models, MatchJob(image=IMAGE, texts=texts))
    assert sorted(match.index for match in split.matches or ()) == list(range(250))
    [whole] = answered(models, MatchJob(image=IMAGE, texts=texts[240:]))
    expected = {match.index + 240: match.itm_logit for match in whole.matches or ()}
    given = {match.index: match.itm_logit for match in split.matches or () if match.index >= 240}
    assert given == pytest.approx(expected, abs=1e-4)


def test_given_texts_that_the_model_has_no_room_for_then_the_job_is_invalid(
    models: Models,
) -> None:
    too_long = "a " * 600
    jobs: list[ImageJob] = [
        MatchJob(image=IMAGE, texts=(too_long,)),
        EmbedJob(texts=("a", too_long)),
        RankJob(image=IMAGE, texts=(LONG,) * 400),
    ]
    for job in jobs:
        with pytest.raises(JobFailed, match="tokens") as failure:
            models.items(job, [0])
        assert failure.value.code is ErrorCode.JOB_INVALID


def test_given_embeddings_of_texts_of_several_jobs_then_they_share_a_batch(models: Models) -> None:
    jobs = [EmbedJob(texts=("a", "b")), EmbedJob(texts=("c",))]
    items = [models.items(job, []) for job in jobs]
    assert {key for key, _ in items} == {BatchKey("embed_texts")}
    asked: list[Asked] = [one for _, own in items for one in own]
    said = models.run(BatchKey("embed_texts"), asked)
    assert [len(rows) for rows in said] == [2, 1]


def test_given_many_long_texts_then_the_device_tells_of_each_part_that_it_has_done(
    engine: Engine,
) -> None:
    told: list[None] = []
    models = serving(engine, engine)
    models.tell(lambda: told.append(None))
    texts = tuple("word1 " * 58 + f"word{n}" for n in range(250))
    answered(models, RankJob(image=IMAGE, texts=texts, k=250))
    assert len(told) >= 250 * 60 / 2_048
    models.tell(lambda: None)


@pytest.mark.parametrize("kind", [MatchJob, RankJob])
def test_given_a_tokenizer_without_enc_then_a_job_that_asks_for_it_is_invalid(
    tmp_path: Path, kind: Any
) -> None:
    plain = write_random_checkpoint(tmp_path, TINY, BOTH)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        words = (plain / name).read_text(encoding="utf-8")
        (plain / name).write_text(words.replace("[ENC]", "[NONE]"), encoding="utf-8")
    engine = Engine.load(plain)
    assert engine.position_zero == "cls"
    models = serving(engine, engine)
    assert answered(models, kind(image=IMAGE, texts=("a b",)))
    assert answered(models, kind(image=IMAGE, texts=("a b",), position_zero="cls"))
    with pytest.raises(JobFailed, match=r"has no \[ENC\]") as caught:
        models.plan(kind(image=IMAGE, texts=("a b",), position_zero="enc"))
    assert caught.value.code is ErrorCode.JOB_INVALID


def test_given_captions_that_are_embedded_alone_then_their_texts_are_not_weighed(
    models: Models, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[list[list[str]]] = []
    match = Engine.match

    def counted(self: Engine, images: Any, texts: Any, *rest: Any, **named: Any) -> Any:
        weighed.append(texts)
        return match(self, images, texts, *rest, **named)

    monkeypatch.setattr(Engine, "match", counted)
    embedded = CaptionJob(image=IMAGE, embed="list")
    both = filtered(min_itm_probability=None).model_copy(update={"options": CaptionOptions()})
    answers = answered(models, embedded, both, embedded)
    [texts] = weighed
    assert [len(row) for row in texts] == [0, 1, 0]
    assert [len(answer.embeddings or ()) for answer in answers] == [1, 0, 1]
    [caption] = answers[1].captions or ()
    assert caption.itm_probability is not None
    answered(models, embedded)
    assert weighed[1] == [[]]
