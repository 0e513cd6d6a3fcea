"""A worker's models with many packs: each job is answered by its own, whatever runs beside it."""

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from producer.contract import (
    CaptionFilter,
    CaptionJob,
    CaptionOptions,
    EmbedJob,
    ErrorCode,
    ExplainJob,
    ExplainOptions,
    ImageFacts,
    ImageJob,
    JobFailed,
    MatchJob,
    RankJob,
)
from tests.full import often
from tests.packs import BASE, WORDS, base_card, write_caption_pack, write_match_pack
from worker.answer import Answer
from worker.asked import BatchKey
from worker.batcher import Batcher
from worker.blip import CaptionOptions as EngineOptions
from worker.blip import Engine
from worker.blip.pack_card import Base
from worker.errors import Fault
from worker.models import Models
from worker.packs.folder import FolderPlace
from worker.packs.library import Packs
from worker.training import scenes

IMAGE = "https://example.com/a.png"
FACTS = ImageFacts(format="PNG", width=96, height=96, bytes=1, sha256="0" * 64)
GREEDY = CaptionOptions(num_beams=1)
TASKS = ("caption", "match")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(BASE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs of two languages and a domain, for both tasks; one is of another checkpoint."""
    at = tmp_path_factory.mktemp("packs")
    write_caption_pack(at / "de", "de", "de", article="ein")
    write_caption_pack(at / "fr", "fr", "fr", article="un")
    write_caption_pack(at / "medical", "medical-v2", None, article="the")
    write_match_pack(at / "de-match", "de-match", "de")
    write_match_pack(at / "shop", "shop")
    write_caption_pack(at / "zh", "zh", "zh", base=Base("other", "1234567890ab", "0" * 64))
    return at


def serving(engine: Engine, folder: Path, **options: Any) -> tuple[Models, Packs]:
    engines = dict.fromkeys(TASKS, engine)
    packs = Packs(engines, [FolderPlace(folder)], **options)
    packs.look()
    return Models(engines, dict.fromkeys(TASKS, "tiny"), EngineOptions, packs=packs), packs


@pytest.fixture(scope="module")
def models(engine: Engine, folder: Path) -> Models:
    return serving(engine, folder)[0]


def framed(models: Models, seed: int) -> Any:
    scene = scenes.sample(random.Random(seed), shapes=1)
    return models.plan(CaptionJob(image=IMAGE)).framing.frame(scenes.draw(scene, side=96))


def answered(models: Models, jobs: Sequence[ImageJob]) -> list[Answer]:
    """The answers of one batch, all about the same image."""
    pixels = framed(models, 1)
    plans = [models.plan(job) for job in jobs]
    batch = [
        models.items(job, [] if job.image is None else [pixels], plan.packs)
        for job, plan in zip(jobs, plans, strict=True)
    ]
    [key] = {key for key, _ in batch}
    said = models.run(key, [one for _, items in batch for one in items])
    return [
        models.answer(job, [one], FACTS, plan.packs)
        for job, one, plan in zip(jobs, said, plans, strict=True)
    ]


def text(answer: Answer) -> str:
    [caption] = answer.captions or ()
    return caption.text


def test_given_jobs_of_several_languages_then_one_batch_has_them_and_each_is_told_its_pack(
    models: Models,
) -> None:
    asked: list[dict[str, str]] = [
        {},
        {"language": "de"},
        {"language": "fr-CA"},
        {"adapter": "medical-v2"},
        {"language": "en"},
        {"language": "de-AT", "adapter": "de"},
    ]
    answers = answered(models, [CaptionJob(image=IMAGE, **one) for one in asked])
    plain = text(answers[0])
    assert plain.startswith("a ")
    beginnings = ["a", "ein", "un", "the", "a", "ein"]
    assert [text(one) for one in answers] == [f"{b} {plain[2:]}" for b in beginnings]
    named = [None if one.pack is None else (one.pack.name, one.pack.language) for one in answers]
    assert named == [None, ("de", "de"), ("fr", "fr"), ("medical-v2", None), None, ("de", "de")]


def test_given_a_match_pack_then_its_batches_are_its_own_and_its_space_is_told(
    models: Models, engine: Engine
) -> None:
    texts = ("a red circle", "a blue square")
    job = MatchJob(image=IMAGE, texts=texts)
    adapted = job.model_copy(update={"adapter": "shop"})
    keys = {models.items(j, [0], models.plan(j).packs)[0] for j in (job, adapted)}
    assert len(keys) == 2
    [plain], [other] = answered(models, [job]), answered(models, [adapted])
    own = {one.text: one.itc_cosine for one in plain.matches or ()}
    turned = {one.text: one.itc_cosine for one in other.matches or ()}
    assert turned == pytest.approx({name: -cosine for name, cosine in own.items()}, abs=1e-5)
    [embedded] = answered(models, [EmbedJob(texts=("a red circle",), adapter="shop")])
    [vector] = embedded.embeddings or ()
    assert other.pack is not None
    assert vector.revision == f"{engine.revision}+shop.{other.pack.revision}"
    [ranked] = answered(models, [RankJob(image=IMAGE, texts=texts, adapter="shop")])
    assert {one.text: one.itc_cosine for one in ranked.ranking or ()} == pytest.approx(turned)


def test_given_a_language_then_captions_are_weighed_by_its_match_pack_or_not_at_all(
    models: Models,
) -> None:
    rules = CaptionFilter(min_itm_probability=0)
    [weighed] = answered(models, [CaptionJob(image=IMAGE, filter=rules, language="de")])
    assert weighed.match_pack is not None
    assert weighed.match_pack.name == "de-match"
    with pytest.raises(JobFailed, match="filter: Nothing here matches texts in fr") as caught:
        models.plan(CaptionJob(image=IMAGE, filter=rules, language="fr"))
    assert caught.value.code is ErrorCode.LANGUAGE_UNAVAILABLE
    [domain] = answered(models, [CaptionJob(image=IMAGE, filter=rules, adapter="medical-v2")])
    assert domain.match_pack is None  # its captions are in the model's own language
    assert [one.itm_probability for one in domain.captions or ()] != [None]


def test_given_captions_that_the_model_cannot_read_then_they_have_embeddings_beside_them(
    engine: Engine, tmp_path: Path
) -> None:
    """In pieces of the model's own the word takes more of them than it has positions."""
    word = "o" * 70
    write_caption_pack(tmp_path / "sw", "sw", "sw", article=word)
    models, _ = serving(engine, tmp_path)
    job = CaptionJob(image=IMAGE, embed="list")
    rules = CaptionFilter(min_itm_probability=0)
    jobs = [
        job.model_copy(update={"language": "sw"}),
        job,
        CaptionJob(image=IMAGE, filter=rules),
    ]
    foreign, plain, weighed = answered(models, jobs)
    assert text(foreign).startswith(word)
    assert foreign.embeddings == plain.embeddings
    assert foreign.embeddings is not None
    assert [one.itm_probability is None for one in weighed.captions or ()] == [False]


def test_given_a_pack_whose_numbers_overflow_then_its_job_fails_and_others_do_not(
    engine: Engine, tmp_path: Path
) -> None:
    write_caption_pack(tmp_path / "sw", "sw", "sw")
    file = tmp_path / "sw" / "adapter_model.safetensors"
    state = load_file(file)
    words = state[f"base_model.model.{WORDS}"]
    words *= 1e38
    save_file(state, file)
    models, _ = serving(engine, tmp_path)
    job = CaptionJob(image=IMAGE)
    with pytest.raises(Fault, match=r"internal_error: no caption: .* not finite"):
        answered(models, [job.model_copy(update={"language": "sw"}), job])
    assert text(*answered(models, [job])).startswith("a ")


def test_given_texts_of_a_language_then_they_are_explained_by_its_tokens(models: Models) -> None:
    job = ExplainJob(image=IMAGE, texts=("ein red circle",), language="de")
    [answer] = answered(models, [job])
    [explained] = answer.explanations or ()
    assert [word.text for word in explained.words] == ["ein", "red", "circle"]
    job = CaptionJob(image=IMAGE, language="fr", explain=ExplainOptions())
    [answer] = answered(models, [job])
    [caption] = answer.captions or ()
    assert caption.explanation is not None
    assert caption.explanation.words[0].text == "un"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"language": "sw"}, "language_unavailable", r"in sw\. Languages: en .*, de, fr\."),
        ({"language": "zh"}, "language_unavailable", "cannot be used: it was trained on other"),
        ({"adapter": "zh"}, "language_unavailable", "cannot be used: it was trained on other"),
        ({"adapter": "absent"}, "language_unavailable", "No adapter is named absent.*medical-v2"),
        ({"adapter": "shop"}, "language_unavailable", "shop is for match"),
        ({"adapter": "de", "language": "fr"}, "job_invalid", "de is of de, not of fr"),
    ],
)
def test_given_a_pack_that_there_is_not_then_the_job_fails_before_anything_is_fetched(
    models: Models, fields: dict[str, str], code: str, words: str
) -> None:
    with pytest.raises(JobFailed, match=words) as caught:
        models.plan(CaptionJob(image=IMAGE, **fields))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("style", "expected"),
    [(None, "ein small"), ("short", "ein small"), ("alt_text", "Ein small")],
)
def test_given_a_style_then_the_caption_is_written_by_the_packs_language(
    models: Models, style: Any, expected: str
) -> None:
    job = CaptionJob(image=IMAGE, language="de", options=CaptionOptions(style=style))
    assert text(*answered(models, [job])).startswith(expected)


def test_given_the_same_languages_again_and_again_then_nothing_is_loaded_twice(
    engine: Engine, folder: Path
) -> None:
    models, packs = serving(engine, folder, room=2)
    for _ in range(20):
        for language in ("de", "fr", "en"):
            models.plan(CaptionJob(image=IMAGE, language=language)).packs  # noqa: B018
        packs.look()
    assert packs.shelf.loads == {"de": 1, "fr": 1}


@pytest.fixture
def batcher() -> Iterator[list[Batcher[BatchKey]]]:
    made: list[Batcher[BatchKey]] = []
    yield made
    for one in made:
        assert one.close(30)


@pytest.mark.timeout(400)  # it loads packs some 1,600 times
def test_given_fifty_packs_and_room_for_four_then_jobs_in_any_order_are_each_answered_right(
    engine: Engine, tmp_path: Path, batcher: list[Batcher[BatchKey]]
) -> None:
    names = [f"p{number:02d}" for number in range(50)]
    for name in names:
        write_caption_pack(tmp_path / name, name)
    models, packs = serving(engine, tmp_path, room=4)
    device: Batcher[BatchKey] = Batcher(models.run, max_batch=16, max_wait_s=0.01)
    batcher.append(device)
    pixels = [framed(models, seed) for seed in range(5)]
    plain = [one[0].text for one in engine.caption(np.stack(pixels), num_beams=1)]
    most, lock = [0], threading.Lock()

    def run(number: int) -> tuple[str, str]:
        name, seed = names[number % 50], number % 7 % 5
        job = CaptionJob(image=IMAGE, adapter=name, options=GREEDY)
        plan = models.plan(job)
        with device.admit() as admission:
            key, items = models.items(job, [pixels[seed]], plan.packs)
            [future] = admission.submit_all(key, items)
        answer = models.answer(job, [future.result(60).value], packs=plan.packs)
        with lock:
            most[0] = max(most[0], len(packs.shelf._alive))
        assert answer.pack is not None
        assert answer.pack.name == name
        return text(answer), f"{name} {plain[seed].removeprefix('a ')}"

    jobs = often(2_000, 500)
    numbers = list(range(jobs))
    random.Random(9).shuffle(numbers)
    threads = 16
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(run, numbers))
    assert [said for said, _ in found] == [expected for _, expected in found]
    loads = packs.shelf.loads.total()
    assert set(packs.shelf.loads) == set(names)
    assert 50 <= loads < jobs
    assert len(packs.shelf.names) == 4
    assert most[0] <= 4 + threads + 16  # kept, asked for, and in the batch that runs
    print(f"{loads} loads, {most[0]} packs on the device at most")


def test_given_a_pack_for_another_revision_then_it_is_listed_with_its_reason(
    engine: Engine, folder: Path
) -> None:
    _, packs = serving(engine, folder)
    reasons = {one.name: one.why_not for one in packs.listed}
    assert [name for name, why in reasons.items() if why] == ["zh"]
    assert engine.revision in str(reasons["zh"])
    assert base_card().revision == engine.revision
