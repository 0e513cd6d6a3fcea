"""`captionq explain` as people type it, by a real worker."""

import json
import subprocess
import sys

import pytest

from tests.house import SCENE, House, picture


@pytest.fixture(scope="module")
def file(house: House) -> str:
    path = house.files / "explained.png"
    path.write_bytes(picture(1)[0])
    return str(path)


def run(house: House, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "producer.cli", "explain", *words],
        env={"CAPTIONQ_BROKER_URL": house.broker.url, "PATH": "/usr/bin:/bin", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


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
