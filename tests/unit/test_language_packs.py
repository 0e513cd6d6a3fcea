"""The bundled packs, by the engine, and what holds them to their cards."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from worker.blip import Engine
from worker.blip.pack_card import read_card
from worker.cli import main
from worker.settings import BUNDLED, model_path
from worker.training.finetune.rows import Complaints
from worker.training.languages import caption, manifest
from worker.training.languages.evaluate import (
    PACKS,
    evaluate_manifest,
    evaluate_scenes,
    falls,
    report,
    save,
)
from worker.training.scenes import draw, sample

LANGUAGES = ("ar", "de", "fr", "zh")
MAX_BYTES = 2_000_000


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(model_path(BUNDLED), tasks=["caption"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_given_a_bundled_pack_then_it_is_small_and_its_card_says_what_it_is_worth(
    language: str, engine: Engine
) -> None:
    folder = PACKS / language
    assert sum(file.stat().st_size for file in folder.iterdir()) < MAX_BYTES
    card = read_card(folder)
    assert (card.language, card.task, card.base.revision) == (language, "caption", engine.revision)
    assert card.scores["scenes_exact"] >= 0.9
    text = (folder / "README.md").read_text()
    assert f"scenes_exact: {card.scores['scenes_exact']:.4g}" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_given_a_bundled_pack_when_evaluated_on_few_scenes_then_it_holds_its_card(
    language: str, engine: Engine
) -> None:
    pack = engine.load_pack(PACKS / language)
    found = evaluate_scenes(engine, pack, language, 100)
    assert not falls(found, read_card(PACKS / language).scores, margin=0.06)
    assert found["scenes_exact"] >= 0.9


def test_given_one_batch_in_five_languages_then_each_row_is_in_its_own(engine: Engine) -> None:
    packs = [None, *(engine.load_pack(PACKS / language) for language in LANGUAGES)]
    scene = sample(random.Random(4))
    found = engine.caption([draw(scene)] * 5, packs=packs, num_beams=1, max_new_tokens=48)
    said = [captions[0].text for captions in found]
    assert said == [caption(scene, language) for language in ("en", *LANGUAGES)]


def test_given_a_prompt_in_chinese_then_the_caption_goes_on_without_a_space(engine: Engine) -> None:
    scene = sample(random.Random(5), 1)
    right = caption(scene, "zh")
    pack = engine.load_pack(PACKS / "zh")
    [[going_on]] = engine.caption(
        draw(scene), packs=pack, num_beams=1, prompt=right[:3], max_new_tokens=48
    )
    [[begun]] = engine.caption(
        draw(scene), packs=pack, num_beams=1, prefix=right[:3], max_new_tokens=48
    )
    assert right[:3] + going_on.text == begun.text == right


@pytest.mark.parametrize(
    ("found", "card", "low"),
    [
        ({"exact": 0.9}, {"exact": 0.9}, {}),
        ({"exact": 0.895}, {"exact": 0.9}, {}),
        ({"exact": 0.885}, {"exact": 0.9}, {"exact": 0.9}),
        ({"bleu_4": 98.5}, {"bleu_4": 99.0}, {}),
        ({"scenes_bleu_4": 97.0}, {"scenes_bleu_4": 99.0}, {"scenes_bleu_4": 99.0}),
        ({"cider_d": 9.91, "exact": 0.5}, {"cider_d": 10.0, "exact": 0.6}, {"exact": 0.6}),
        ({"cider_d": 9.8}, {"cider_d": 10.0}, {"cider_d": 10.0}),
        ({"exact": 0.1}, {"scenes_exact": 0.9}, {}),
        ({"exact": 1.0}, {"exact": 0.9}, {}),
    ],
)
def test_given_figures_and_a_card_then_those_too_far_below_it_are_found(
    found: dict[str, float], card: dict[str, float], low: dict[str, float]
) -> None:
    assert falls(found, card, 0.01) == low
    assert (", too low" in report(found, card, 0.01)) == bool(low)


def test_given_figures_when_saved_then_both_cards_have_them_and_others_stay(tmp_path: Path) -> None:
    folder = shutil.copytree(PACKS / "de", tmp_path / "de")
    before = read_card(folder)
    save(folder, {"bleu_4": 12.34567, "images": 40.0})
    assert read_card(folder) == replace(before, scores={**before.scores, "bleu_4": 12.3457})
    assert "bleu_4: 12.35" in (folder / "README.md").read_text()


def test_given_a_manifest_then_an_image_is_judged_by_all_its_captions(
    engine: Engine, tmp_path: Path
) -> None:
    table = manifest.write(tmp_path, ["fr", "de"], 40, "figures")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for row in rows[:20:2]:  # ten images have a second reference, which comes first
        rows.insert(0, {**row, "caption": "autre chose"})
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows.append({"image": "broken.png", "caption": "rien", "language": "fr"})
    table.write_text("\n".join(map(json.dumps, rows)))
    said: list[str] = []

    pack = engine.load_pack(PACKS / "fr")
    found = evaluate_manifest(engine, pack, "fr", table, Complaints(said.append), beams=1)

    assert found["images"] == 40
    assert found["exact"] >= 0.9
    assert 90 < found["bleu_4"] <= 100
    assert 5 < found["cider_d"] < 10
    assert [line.split(":")[0] for line in said] == ["left out broken.png"]


def ends(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr("sys.argv", ["captionq-worker", "evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_given_a_card_that_promises_more_than_the_pack_has_then_the_command_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(PACKS / "ar", tmp_path / "ar")
    asked = ["--language", "ar", str(folder), "--scenes", "40", "--margin", "0.1"]
    assert ends(asked, monkeypatch) == 0
    assert "(card" in capsys.readouterr().out

    save(folder, {"scenes_exact": 1.2})
    assert ends([*asked, "--json"], monkeypatch) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["scenes_exact"] <= 1
    assert "below the card by more than 0.1 of the scale: scenes_exact" in err


def test_given_figures_as_saved_then_no_margin_is_needed_to_hold_them(tmp_path: Path) -> None:
    folder = shutil.copytree(PACKS / "de", tmp_path / "de")
    found = {"bleu_4": 99.02817}  # saved as a little more

    assert falls(found, save(folder, found).scores, 0.0) == {}


def test_given_a_region_then_the_bundled_pack_of_its_language_is_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--language", "de-AT", "--scenes", "10", "--margin", "0.5", "--json"]

    assert ends(asked, monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["scenes_exact"] > 0.5


def test_given_a_card_without_such_figures_then_nothing_is_held_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(PACKS / "de", tmp_path / "de")
    replace(read_card(folder), scores={}).write(folder)

    assert ends(["--language", "de", str(folder), "--scenes", "4"], monkeypatch) == 0
    assert "none of these figures to hold" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--save"], "are for a --language"),
        (["--language", "de", "--modes"], "ask for one of these"),
        (["--language", "en", "--save"], "writes into the card of a pack"),
        (["--language", "sv", "--scenes", "2"], "not in 'sv'"),
        (["--language", "de", "/nowhere"], "no pack"),
        (["--language", "de", "--data", "/tmp"], "--data is a manifest"),
    ],
)
def test_given_a_mistake_then_it_is_said(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends(arguments, monkeypatch) == 2
    assert message in " ".join(capsys.readouterr().err.split())
