"""Embeddings, rankings and validations with a worker, its model and the bundled checkpoint."""

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from producer.contract import Embedding
from producer.ranking import rank
from tests import fork_server
from tests.house import House
from worker.training import scenes

COUNT = 60
SIDE = 192


@pytest.fixture(scope="module")
def photos(house: House) -> dict[str, str]:
    """Scenes of one shape in a folder that the worker may read: captions by file, all different."""
    folder, rng = house.files / "pairs", random.Random(7)
    folder.mkdir()
    captions: dict[str, str] = {}
    while len(captions) < COUNT:
        scene = scenes.sample(rng, shapes=1)
        if scene.caption not in captions.values():
            name = f"{len(captions):02}.png"
            scenes.draw(scene, side=SIDE).save(folder / name)
            captions[name] = scene.caption
    return captions


def captionq(house: House, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | house.environment
    return fork_server.captionq(*words, cwd=house.files / "pairs", env=environment)


def lines(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_given_right_and_swapped_captions_then_the_report_tells_them_apart(
    house: House, photos: dict[str, str]
) -> None:
    names = list(photos)
    table = [(name, photos[name]) for name in names]
    table += [(name, photos[names[n - 7]]) for n, name in enumerate(names)]
    folder = house.files / "pairs"
    text = "".join(json.dumps({"image": a, "caption": b}) + "\n" for a, b in table)
    (folder / "pairs.jsonl").write_text(text)

    (summary,) = lines(captionq(house, "validate", "pairs.jsonl", "-o", "report", "--json"))

    assert summary["scored"] == 2 * COUNT
    rows = [json.loads(line) for line in (folder / "report/scores.jsonl").read_text().splitlines()]
    right = [row["itm_probability"] >= 0.5 for row in rows if row["index"] < COUNT]
    wrong = [row["itm_probability"] < 0.5 for row in rows if row["index"] >= COUNT]
    assert len(right) == len(wrong) == COUNT
    assert sum(right) >= 0.95 * COUNT
    assert sum(wrong) >= 0.95 * COUNT
    assert summary["below"] == sum(row["itm_probability"] < 0.5 for row in rows)
    page = (folder / "report/worst.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 50


def test_given_a_caption_then_its_own_image_is_ranked_first(
    house: House, photos: dict[str, str]
) -> None:
    names = list(photos)
    uris = [Path(house.files / "pairs" / name).as_uri() for name in names]

    found = [rank(house.client, photos[name], iter(uris), k=8) for name in names[:10]]
    done = captionq(house, "rank", photos[names[3]], "*.png", "-k", "3", "--json")

    assert sum(one.best[0].index == n for n, one in enumerate(found)) >= 9
    for one in found:
        assert one.counts == {"succeeded": COUNT}
        assert len(one.best) == 8
        assert [b.score for b in one.best] == sorted((b.score for b in one.best), reverse=True)
    (document,) = lines(done)
    assert document["succeeded"] == COUNT
    assert document["best"][0]["image"] == names[3]
    assert document["revision"] == found[0].revision


@pytest.mark.parametrize(
    ("encoding", "within"), [("list", 1e-5), ("float32", 1e-5), ("float16", 1e-3)]
)
def test_given_embeddings_of_an_image_and_a_text_then_their_cosine_is_the_matchs(
    house: House, photos: dict[str, str], encoding: str, within: float
) -> None:
    text = photos["00.png"]
    names = ("embedding", "encoding", "model", "revision")

    (image,) = lines(captionq(house, "embed", "00.png", "--encoding", encoding))
    (words,) = lines(captionq(house, "embed", "--text", text, "--encoding", encoding))
    (match,) = lines(captionq(house, "match", "00.png", "--text", text, "--text", "a"))

    one, other = (
        Embedding(
            encoding=row["encoding"],
            model=row["model"],
            revision=row["revision"],
            **(
                {"vector": tuple(row["embedding"])}
                if encoding == "list"
                else {"base64": row["embedding"]}
            ),
        )
        for row in (image, words)
    )
    assert set(names) <= set(image)
    assert len(one.values()) == 256
    assert one.cosine(one) == pytest.approx(1.0, abs=within)
    assert match["text"] == text
    assert one.cosine(other) == pytest.approx(match["itc_cosine"], abs=within)
