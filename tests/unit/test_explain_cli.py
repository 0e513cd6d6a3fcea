"""`captionq-worker explain`: what it prints, what it writes, and how it ends."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from worker import cli
from worker.blip import Engine
from worker.blip.placement import placed
from worker.pictures.colours import colours
from worker.training.evaluate import BUNDLED
from worker.training.scenes import draw, sample

CANVAS = (1.6, 1.0)
FILES = (".npz", ".sheet.png", ".html")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 320 x 200 pixels, stored lying on its side."""
    path = tmp_path_factory.mktemp("photos") / "scene.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = draw(sample(random.Random(3), shapes=1), 200, CANVAS)
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=turned, quality=95)
    return path


def explain(*given: object) -> Result:
    return CliRunner().invoke(cli.cli, ["explain", *map(str, given), "--device", "cpu"])


def documents(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("mode", ["stretch", "pad", "crop", "native"])
def test_given_an_image_then_its_caption_is_explained_on_the_upright_image_in_every_mode(
    photo: Path, mode: Any
) -> None:
    [document] = documents(explain(photo, "--json", "--mode", mode))

    engine = Engine.load(BUNDLED)
    captions = engine.caption(photo, mode=mode)
    [[expected]] = engine.explain(photo, captions, mode=mode)
    on = placed(engine.framing(mode), 320, 200)
    [caption] = document["captions"]
    assert document == {"image": str(photo), "captions": [caption]}
    assert (caption["text"], caption["method"]) == (captions[0][0].text, "attention")
    assert len(caption["words"]) == len(expected.words)
    for said, word, shares in zip(caption["words"], expected.words, expected.maps, strict=True):
        located = on.locate(shares)
        assert said["text"] == word.text
        assert said["logprob"] == pytest.approx(word.logprob, abs=1e-4)
        assert said["probability"] == pytest.approx(np.exp(word.logprob), abs=1e-4)
        assert said["peak"] == pytest.approx(located.peak, abs=1e-2)
        assert said["box"] == list(located.box)
        assert said["entropy"] == pytest.approx(located.entropy, abs=1e-3)
        assert said["coverage"] == pytest.approx(located.coverage)


def test_given_texts_then_these_are_explained_by_the_method_that_is_named(photo: Path) -> None:
    texts = ["a red ring", "a blue ring"]

    [document] = documents(
        explain(photo, "--json", "--text", texts[0], "--text", texts[1], "--method", "gradcam")
    )

    assert [one["text"] for one in document["captions"]] == texts
    assert {one["method"] for one in document["captions"]} == {"gradcam"}
    blue = document["captions"][1]["words"]
    assert [word["text"] for word in blue] == texts[1].split()


def test_given_a_folder_then_it_gets_the_arrays_the_pictures_and_the_page(
    photo: Path, tmp_path: Path
) -> None:
    same = tmp_path / "other" / photo.name
    same.parent.mkdir()
    same.write_bytes(photo.read_bytes())
    out = tmp_path / "out"

    found = documents(explain(photo, same, "--json", "-o", out, "--beams", 1, "-n", 1))

    for document, stem in zip(found, ("scene", "scene-2"), strict=True):
        words = len(document["captions"][0]["words"])
        overlays = [f"{stem}.word-{number:02}.png" for number in range(1, words + 1)]
        expected = {str(out / name) for name in [*overlays, *(f"{stem}{end}" for end in FILES)]}
        assert set(document["files"]) == expected
    assert {str(path) for path in out.iterdir()} == {
        name for document in found for name in document["files"]
    }
    with Image.open(out / "scene.word-01.png") as overlay:
        assert overlay.size == (320, 200)
    assert np.load(out / "scene.npz")["size"].tolist() == [320, 200]
    assert found[0]["captions"] == found[1]["captions"]


def test_given_no_json_then_it_prints_a_table_of_each_caption(photo: Path) -> None:
    result = explain(photo, "--text", "a red ring")

    assert result.exit_code == 0
    assert "a red ring" in result.stdout
    for name in ("word", "probability", "peak", "box", "entropy", "coverage"):
        assert name in result.stdout
    assert "files" not in result.stdout


def test_given_a_file_that_cannot_be_read_then_the_others_are_explained(
    photo: Path, tmp_path: Path
) -> None:
    result = explain(tmp_path / "none.jpg", photo, "--json")

    assert result.exit_code == 1
    assert "cannot read" in result.stderr
    assert json.loads(result.stdout)["image"] == str(photo)


def test_given_no_matplotlib_then_files_are_refused_before_any_work(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    colours.cache_clear()

    result = explain(photo, "-o", tmp_path / "out")

    assert result.exit_code == 2
    assert "pip install 'captionq[report]'" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resolution", "97"), "multiple of the patch size"),
        (("-n", "0"), "num_return_sequences"),
        (("--model", "nowhere/at/all"), "nowhere/at/all"),
    ],
)
def test_given_a_mistake_then_one_sentence_says_what_is_wrong(
    photo: Path, words: tuple[str, ...], said: str
) -> None:
    result = explain(photo, *words)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert said in result.stderr
