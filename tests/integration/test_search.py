"""`captionq index` and `captionq search` as people run them, with a real worker."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from producer.cli import app
from producer.contract import EmbedJob
from tests.house import House
from worker.training import scenes

ROOT = Path(__file__).parents[2]
ASKED = "a small red circle on white"


def drawn(rng: random.Random, background: str | None = None, **how: Any) -> scenes.Scene:
    """A scene of one shape, on a background if one is asked for."""
    while True:
        scene = scenes.sample(rng, shapes=1, **how)
        if background in (None, scene.background):
            return scene


@pytest.fixture(scope="module")
def photos(house: House) -> dict[str, str]:
    """Forty scenes in a folder that the worker reads, four of them as asked for: URI to caption."""
    rng, folder = random.Random(5), house.files / "photos"
    folder.mkdir()
    wanted = [("small", "red", "circle")]
    found = [drawn(rng, "white", among=wanted) for _ in range(4)]
    found += [drawn(rng) for _ in range(36)]
    said = {}
    for number, scene in enumerate(found):
        path = folder / f"{number:02}.png"
        scenes.draw(scene, side=96).save(path)
        said[path.as_uri()] = scene.caption
    return said


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def captionq(house: House, home: Path, *words: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (house.environment | {"CAPTIONQ_HOME": str(home)}).items():
            patch.setenv(name, value)
        return CliRunner().invoke(app, words)


@pytest.fixture(scope="module")
def built(house: House, home: Path, photos: dict[str, str]) -> Path:
    """The home of an index of all photos."""
    own = {"CAPTIONQ_HOME": str(home), "PYTHONPATH": str(ROOT)}
    words = ["index", "build", str(house.files / "photos"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", *words],
        env=os.environ | house.environment | own, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["succeeded"], document["new"], document["left_out"]) == (40, 40, {})
    return home


def found(done: Result) -> list[dict[str, Any]]:
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("more", [[], ["--rerank"]])
def test_given_scenes_that_were_captioned_then_words_find_those_that_show_them(
    house: House, built: Path, photos: dict[str, str], more: list[str]
) -> None:
    hits = found(captionq(house, built, "search", ASKED, "-k", "4", "--json", *more))

    assert [photos[hit["image_ref"]] for hit in hits] == [ASKED] * 4
    assert [hit["caption"] for hit in hits] == [ASKED] * 4
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
    key = "score" if more else "itc_cosine"
    assert [hit[key] for hit in hits] == sorted((hit[key] for hit in hits), reverse=True)


def test_given_an_image_then_it_finds_itself_first(
    house: House, built: Path, photos: dict[str, str]
) -> None:
    uri = list(photos)[7]
    (hit,) = found(captionq(house, built, "search", "--image", uri, "-k", "1", "--json"))

    assert hit["image_ref"] == uri
    assert hit["itc_cosine"] == pytest.approx(1, abs=1e-3)  # by float16


def test_given_filters_then_only_what_passes_them_is_found(
    house: House, built: Path, photos: dict[str, str]
) -> None:
    folder = str(house.files / "photos")
    words = ("search", ASKED, "-k", "40", "--json")
    on_black = found(captionq(house, built, *words, "--caption-contains", "On BLACK"))
    elsewhere = found(captionq(house, built, *words, "--source", "s3://photos/"))
    here = found(captionq(house, built, *words, "--source", folder))

    assert {hit["caption"] for hit in on_black} <= {c for c in photos.values() if "on black" in c}
    assert len(on_black) > 0
    assert elsewhere == []
    assert {hit["image_ref"] for hit in here} == set(photos)


def test_given_an_image_that_has_gone_then_it_keeps_its_place_and_is_marked(
    house: House, built: Path, photos: dict[str, str]
) -> None:
    words = ("search", ASKED, "-k", "4", "--json")
    second = found(captionq(house, built, *words))[1]["image_ref"]
    path = Path(second.removeprefix("file://"))
    content = path.read_bytes()
    path.unlink()
    try:
        hits = found(captionq(house, built, *words, "--rerank"))
        shown = captionq(house, built, "search", ASKED, "-k", "4", "--rerank").stdout
    finally:
        path.write_bytes(content)

    assert hits[1]["image_ref"] == second
    assert hits[1]["not_reranked"] == "file_not_found"
    assert [hit.get("not_reranked") for hit in hits].count(None) == 3
    assert "file_not_found" in shown


def test_given_the_same_images_again_then_the_index_is_as_it_was(
    house: House, built: Path, photos: dict[str, str]
) -> None:
    folder = str(house.files / "photos")
    again = captionq(house, built, "index", "build", folder, "--json")
    counted = captionq(house, built, "index", "stats", "--json")

    assert json.loads(again.stdout)["replaced"] == 40
    stats = json.loads(counted.stdout)
    assert (stats["rows"], stats["dimensions"], stats["uri"]) == (40, 256, f"{built}/index")


def test_given_a_result_that_submit_printed_then_it_can_be_added(
    house: House, built: Path, photos: dict[str, str], tmp_path: Path
) -> None:
    result = house.client.submit(EmbedJob(image=next(iter(photos)))).result(60)
    (tmp_path / "one.jsonl").write_text(result.model_dump_json() + "\n")
    index = str(tmp_path / "index")
    added = captionq(house, built, "index", "add", str(tmp_path), "--index", index, "--json")
    (hit,) = found(captionq(house, built, "search", ASKED, "--index", index, "--json"))

    assert json.loads(added.stdout)["new"] == 1
    assert (hit["image_ref"], hit["caption"]) == (next(iter(photos)), None)
