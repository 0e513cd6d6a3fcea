"""Languages and domains through a real house: packs in a folder and in a bucket, by a worker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer import (
    CaptionChunk,
    CaptionFilter,
    CaptionJob,
    CaptionOptions,
    EmbedJob,
    ErrorCode,
    ExplainJob,
    JobState,
    MatchChunk,
    MatchJob,
)
from producer.exits import JOB_FAILED
from tests.fork_server import captionq
from tests.house import PNG, SCENE, House, open_house, picture
from tests.packs import write_caption_pack, write_match_pack
from worker.blip.pack_card import Base
from worker.training.languages import caption as said_in

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Path]]:
    """A house whose worker has packs, and the folder of some of them."""
    at = tmp_path_factory.mktemp("house")
    packs = at / "packs"
    write_caption_pack(packs / "de", "de", "de", article="ein")
    write_match_pack(packs / "shop", "shop")
    write_caption_pack(packs / "old", "old-model", "sv", base=Base("other", "1" * 12, "0" * 64))
    settings = {
        "CAPTIONQ_PACKS": f"{packs},s3://photos/packs/",
        "CAPTIONQ_PACKS_LOADED": "1",
        "CAPTIONQ_PACKS_PINNED": "de",
        "CAPTIONQ_HOME": str(at / "home"),
    }
    (at / "s3" / "photos").mkdir(parents=True)
    write_caption_pack(at / "s3" / "photos" / "packs" / "fr", "fr", "fr", article="un")
    with open_house(at, **settings) as house:
        (house.files / "scene.png").write_bytes(PNG)
        yield house, packs


@pytest.fixture
def image(here: tuple[House, Path]) -> str:
    return (here[0].files / "scene.png").as_uri()


@pytest.fixture
def house(here: tuple[House, Path]) -> House:
    return here[0]


def test_given_a_worker_with_packs_then_its_log_says_what_it_has_and_what_it_cannot_use(
    house: House,
) -> None:
    log = house.worker.log
    assert "pack de: de" in log
    assert "pack fr: fr" in log
    assert "old-model" in log
    assert "cannot adapt" in log
    assert log.index("the pack de (") < log.index("ready.")  # it is pinned


def test_given_languages_then_captions_are_in_them_and_say_which_pack_answered(
    house: House, image: str
) -> None:
    options = CaptionOptions(style="alt_text")
    jobs = [
        CaptionJob(image=image),
        CaptionJob(image=image, language="de-AT"),
        CaptionJob(image=image, language="fr"),
        CaptionJob(image=image, adapter="de", options=options),
    ]
    results = [handle.result(60).raise_for_state() for handle in house.client.submit_many(jobs)]
    said = [result.captions[0].text for result in results if result.captions]
    rest = SCENE.caption.removeprefix("a ")
    assert said == [SCENE.caption, f"ein {rest}", f"un {rest}", f"Ein {rest}"]
    named = [result.pack and (result.pack.name, result.pack.language) for result in results]
    assert named == [None, ("de", "de"), ("fr", "fr"), ("de", "de")]
    assert {result.model and result.model.revision for result in results} == {
        results[0].model and results[0].model.revision
    }


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"language": "nl"}, ErrorCode.LANGUAGE_UNAVAILABLE, "captions in nl. Languages: en"),
        ({"language": "sv"}, ErrorCode.LANGUAGE_UNAVAILABLE, "sv cannot be used: it was trained"),
        ({"adapter": "medical"}, ErrorCode.LANGUAGE_UNAVAILABLE, "No adapter is named medical"),
        ({"adapter": "de", "language": "fr"}, ErrorCode.JOB_INVALID, "is of de, not of fr"),
    ],
)
def test_given_what_there_is_not_then_the_job_fails_at_once_and_says_what_there_is(
    house: House, image: str, fields: dict[str, str], code: ErrorCode, words: str
) -> None:
    result = house.client.submit(CaptionJob(image=image, **fields)).result(60)
    assert (result.state, result.attempts) == (JobState.FAILED, 1)
    assert result.error is not None
    assert result.error.code is code
    assert words in result.error.message


def test_given_a_chunk_in_a_language_then_each_item_says_its_pack_and_so_does_the_whole(
    house: House, image: str
) -> None:
    images = (image, image, "file:///nowhere.png")
    result = house.client.submit(CaptionChunk(images=images, language="fr")).result(60)
    assert result.counts == {"succeeded": 2, "file_not_allowed": 1}
    assert result.pack is not None
    assert result.pack.name == "fr"
    assert [item.pack and item.pack.name for item in result.items or ()] == ["fr", "fr", None]
    assert all(item.captions[0].text.startswith("un ") for item in (result.items or ())[:2])
    failed = house.client.submit(CaptionChunk(images=images, language="nl")).result(60)
    assert failed.error is not None
    assert failed.error.code is ErrorCode.LANGUAGE_UNAVAILABLE


def test_given_a_domain_then_matches_and_embeddings_are_its_own(house: House, image: str) -> None:
    texts = (SCENE.caption, "a picture of nothing")
    plain, adapted = (
        house.client.submit(MatchJob(image=image, texts=texts, adapter=adapter)).result(60)
        for adapter in (None, "shop")
    )
    own = {match.text: match.itc_cosine for match in plain.matches or ()}
    turned = {match.text: match.itc_cosine for match in adapted.matches or ()}
    assert turned == pytest.approx({text: -cosine for text, cosine in own.items()}, abs=1e-4)
    assert adapted.pack is not None
    embedded = house.client.submit(EmbedJob(image=image, adapter="shop")).result(60)
    assert embedded.embeddings is not None
    assert embedded.space == (embedded.embeddings[0].model, embedded.embeddings[0].revision)
    assert embedded.space == adapted.space != plain.space
    chunk = MatchChunk(images=(image,), texts=texts, adapter="shop")
    assert house.client.submit(chunk).result(60).space == adapted.space


def test_given_texts_in_a_language_then_they_are_explained_in_it(house: House, image: str) -> None:
    words = f"ein {SCENE.caption.removeprefix('a ')}"
    job = ExplainJob(image=image, texts=(words,), language="de")
    result = house.client.submit(job).result(60).raise_for_state()
    [explained] = result.explanations or ()
    assert [word.text for word in explained.words] == words.split()


BUNDLED = sorted(path.name for path in (ROOT / "worker" / "checkpoints" / "packs").iterdir())


@pytest.mark.parametrize("language", BUNDLED)
def test_given_no_setting_then_the_bundled_packs_caption_scenes_in_their_languages(
    house: House, language: str
) -> None:
    drawn = [picture(seed) for seed in range(60, 72)]
    for number, (data, _) in enumerate(drawn):
        (house.files / f"{number}.png").write_bytes(data)
    images = tuple((house.files / f"{number}.png").as_uri() for number in range(len(drawn)))
    adapter = f"scenes-{language}"  # packs of the test's own are named as their language
    chunk = CaptionChunk(images=images, language=language, adapter=adapter)
    result = house.client.submit(chunk).result(90).raise_for_state()
    assert (result.pack and result.pack.language) == language
    said = [item.captions[0].text for item in result.items or () if item.captions]
    right = [said_in(scene, language) for _, scene in drawn]
    assert sum(one == other for one, other in zip(said, right, strict=True)) >= 10


def test_given_captions_that_nothing_can_weigh_then_the_filter_is_refused(
    house: House, image: str
) -> None:
    job = CaptionJob(image=image, language="de", filter=CaptionFilter())
    result = house.client.submit(job).result(60)
    assert result.error is not None
    assert result.error.message.startswith("filter: Nothing here matches texts in de.")


def test_given_a_pack_that_comes_while_the_worker_runs_then_it_answers_without_a_restart(
    here: tuple[House, Path], image: str
) -> None:
    house, packs = here
    write_caption_pack(packs / "it", "it", "it", article="uno")
    for _ in range(20):  # places are looked at again, but not for each job
        result = house.client.submit(CaptionJob(image=image, language="it")).result(60)
        if result.state is JobState.SUCCEEDED:
            break
        time.sleep(0.5)
    assert result.captions is not None
    assert result.captions[0].text.startswith("uno ")


def test_given_images_in_several_languages_then_one_chunk_has_each_in_its_own(
    house: House, image: str
) -> None:
    languages = ("de", "fr", None, "nl")
    result = house.client.submit(CaptionChunk(images=(image,) * 4, languages=languages)).result(60)
    assert result.counts == {"succeeded": 3, "language_unavailable": 1}
    said = [item.captions[0].text.split()[0] for item in result.items or () if item.captions]
    assert said == ["ein", "un", "a"]
    assert result.pack is None  # no one pack answered for all


def shell(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    return captionq(*words, env=os.environ | house.environment)


def test_given_the_command_line_then_it_takes_languages_adapters_and_styles(
    house: House, image: str
) -> None:
    one = ("--language", "de", "--style", "alt_text")
    submitted = shell(house, "submit", image, *one, "--wait", "--json")
    assert json.loads(submitted.stdout)["captions"][0]["text"].startswith("Ein ")
    ran = shell(house, "caption", image, *one)
    assert json.loads(ran.stdout)["caption"].startswith("Ein ")
    table = house.files / "shop.csv"
    table.write_text(f"image,lang\n{image},fr\n{image},\n{image},nl\n")
    mixed = shell(house, "caption", str(table), "--language-column", "lang", "--ordered")
    rows = [json.loads(line) for line in mixed.stdout.splitlines()]
    assert [(row["language"], row["code"]) for row in rows] == [
        ("fr", None),
        (None, None),
        ("nl", "language_unavailable"),
    ]
    assert [row["caption"].split()[0] for row in rows[:2]] == ["un", "a"]
    matched = shell(house, "match", image, "--text", SCENE.caption, "--adapter", "shop")
    assert json.loads(matched.stdout)["state"] == "succeeded"
    ranked = shell(house, "rank", SCENE.caption, image, "--adapter", "shop", "--json")
    assert "+shop." in json.loads(ranked.stdout)["revision"]
    explained = shell(house, "explain", image, "--language", "fr")
    assert explained.stdout.startswith("un ")
    refused = shell(house, "submit", image, "--language", "nl", "--wait")
    assert (refused.returncode, "language_unavailable" in refused.stdout) == (JOB_FAILED, True)


def test_given_the_workers_settings_then_its_packs_are_listed(house: House) -> None:
    models = {"CAPTIONQ_CAPTION_MODEL": "bundled", "CAPTIONQ_MATCH_MODEL": "bundled"}
    environment = os.environ | house.environment | models | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "worker", "packs"]
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["de"]["usable"] is True
    assert rows["fr"]["where"] == "s3://photos/packs/fr"
    assert (rows["shop"]["task"], rows["shop"]["language"]) == ("match", None)
    assert "cannot adapt" in rows["old-model"]["why_not"]
    assert rows["de"]["bytes"] > 10_000
