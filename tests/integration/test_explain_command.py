"""`captionq explain` as people type it, by a real worker."""

import json
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from tests.fork_server import captionq
from tests.house import SCENE, House, picture


@pytest.fixture(scope="module")
def file(house: House) -> str:
    path = house.files / "explained.png"
    path.write_bytes(picture(1)[0])
    return str(path)


def run(house: House, *words: str, at: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {
        "CAPTIONQ_BROKER_URL": house.broker.url,
        "PATH": "/usr/bin:/bin",
        "HOME": "/nowhere",
    }
    return captionq("explain", *words, env=environment, cwd=at or Path.cwd())


def test_given_an_image_then_its_caption_is_printed_with_a_line_for_each_word(
    house: House, file: str
) -> None:
    ended = run(house, file)
    assert ended.returncode == 0, ended.stderr
    first, head, *lines = ended.stdout.splitlines()
    assert first == SCENE.caption
    assert head.split() == ["prob", "peak", "box", "spread"]
    assert [line.split()[0] for line in lines] == SCENE.caption.split()
    assert all(0 <= float(line.split()[1]) <= 1 for line in lines)


def test_given_texts_then_these_are_explained_as_json(house: House, file: str) -> None:
    texts = ("a small red circle on white", "a star")
    ended = run(house, file, "--text", texts[0], "--text", texts[1], "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)["explanations"]
    assert [one["text"] for one in found] == list(texts)
    assert [word["text"] for word in found[1]["words"]] == ["a", "star"]


def test_given_inline_then_the_json_has_the_maps_and_a_picture(house: House, file: str) -> None:
    ended = run(house, file, "--inline", "--json")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    [found] = [caption["explanation"] for caption in result["captions"]]
    rows, columns = found["map_grid"]
    assert all(len(b64decode(word["map"])) == rows * columns for word in found["words"])
    assert b64decode(result["preview"]["data"]).startswith(b"\xff\xd8\xff")
    print(f"inline: {len(ended.stdout)} bytes")


@pytest.mark.parametrize("output", ["../maps/of all", "s3://photos/maps/of%20all"])
def test_given_a_folder_then_it_gets_the_maps_and_the_pictures(
    house: House, file: str, output: str
) -> None:
    ended = run(house, file, "-o", output, "--json", at=house.files)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout)
    [found] = [caption["explanation"] for caption in result["captions"]]
    folder = house.bucket / "maps" if "://" in output else house.maps
    names = {path.name for path in (folder / "of all").iterdir()}
    pictures = [f"word-{number:02}.png" for number in range(1, len(found["words"]) + 1)]
    endings = ["npz", "html", "sheet.png", *pictures]
    assert names == {f"{result['job_id']}.{ending}" for ending in endings}
    assert found["maps"].endswith(f"/of%20all/{result['job_id']}.npz")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--raw"], 2, "raw are written to a sink"),
        (["-o", "elsewhere"], 1, "CAPTIONQ_SINK_ALLOW"),
        (["--method", "guess"], 2, "guess"),
    ],
)
def test_given_what_cannot_be_done_then_one_sentence_says_so(
    house: House, file: str, words: list[str], code: int, sentence: str
) -> None:
    ended = run(house, file, *words)
    assert ended.returncode == code
    assert sentence in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
