"""`captionq-worker caption` and `match`: what they print, as they go, and how they end."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.blip_checkpoints import BOTH, TINY, noise_images, write_random_checkpoint
from tests.packs import write_caption_pack, write_match_pack
from worker import cli
from worker.blip import CaptionOptions, Engine, crop, distinct_2
from worker.blip.bench.peak import Peak
from worker.training import scenes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), TINY, BOTH, spread=3.0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(20)]
    for path, image in zip(paths, noise_images(20), strict=True):
        image.save(path)
    return paths


@pytest.fixture
def broken(tmp_path: Path) -> list[Path]:
    """No image, a truncated one, one of too many pixels for Pillow, and no file."""
    note, half, bomb = tmp_path / "note.png", tmp_path / "half.png", tmp_path / "bomb.pgm"
    note.write_text("hello")
    noise_images(1)[0].save(half)
    half.write_bytes(half.read_bytes()[:-40])
    bomb.write_bytes(b"P5 30000 12000 255\n")
    return [note, half, bomb, tmp_path / "none.png"]


def captionq_worker(*words: object) -> Result:
    return CliRunner().invoke(cli.cli, [str(word) for word in words])


def documents(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_given_more_images_than_a_batch_when_captioned_then_each_has_its_document(
    checkpoint: Path, images: list[Path]
) -> None:
    result = captionq_worker("caption", *images, "--model", checkpoint, "--device", "cpu", "--json")

    engine = Engine.load(checkpoint, tasks=["caption"])
    assert result.exit_code == 0
    found = documents(result)
    assert [document["image"] for document in found] == [str(path) for path in images]
    for path, document in zip(images, found, strict=True):
        [[caption]] = engine.caption(path)
        assert document == {
            "image": str(path),
            "captions": [
                {
                    **asdict(caption),
                    "logprob": pytest.approx(caption.logprob, abs=1e-4),
                    "mean_logprob": pytest.approx(caption.mean_logprob, abs=1e-4),
                    "score": pytest.approx(caption.score, abs=1e-4),
                    "token_logprobs": pytest.approx(caption.token_logprobs, abs=1e-4),
                    "processed_token_logprobs": pytest.approx(
                        caption.processed_token_logprobs, abs=1e-4
                    ),
                }
            ],
        }


def test_given_every_flag_when_captioned_then_the_engine_gets_their_options(
    checkpoint: Path, images: list[Path]
) -> None:
    words = [
        *("--sample", "--temperature", 1.5, "--top-k", 40, "--top-p", 0.9, "--min-p", 0.01),
        *("--seed", 7, "-n", 4, "--repetition-penalty", 1.2, "--no-repeat-ngram", 2),
        *("--length-penalty", 0.5, "--stop", "word9", "--stop", ".", "--max-chars", 60),
        *("--ban", "a", "--ban", "word7 b", "--prompt", "b", "--prefix", "c d"),
        *("--min-tokens", 2, "--max-tokens", 9, "--model", checkpoint, "--device", "cpu"),
    ]
    result = captionq_worker("caption", images[0], *words, "--json")
    assert result.exit_code == 0, result.stderr
    [document] = documents(result)
    [expected] = Engine.load(checkpoint, tasks=["caption"]).caption(
        images[0],
        do_sample=True,
        temperature=1.5,
        top_k=40,
        top_p=0.9,
        min_p=0.01,
        seed=7,
        num_return_sequences=4,
        repetition_penalty=1.2,
        no_repeat_ngram_size=2,
        length_penalty=0.5,
        stop_strings=("word9", "."),
        max_chars=60,
        bad_words=("a", "word7 b"),
        prompt="b",
        prefix="c d",
        min_new_tokens=2,
        max_new_tokens=9,
    )
    assert [c["text"] for c in document["captions"]] == [c.text for c in expected]
    assert [c["seed"] for c in document["captions"]] == [7] * len(expected)
    texts = [c.text for c in expected for _ in range(c.count)]
    assert len(texts) == 4
    assert document["distinct_2"] == distinct_2(texts)


def test_given_several_captions_without_json_then_each_has_its_line(
    checkpoint: Path, images: list[Path]
) -> None:
    result = captionq_worker(
        "caption", images[0], "-n", 2, "--model", checkpoint, "--device", "cpu"
    )
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [str(images[0])] * 2


def test_given_texts_when_matched_then_each_image_has_a_document_with_each_text(
    checkpoint: Path, images: list[Path]
) -> None:
    texts = ["--text", "a b", "--text", "word7"]
    options = ["--model", checkpoint, "--device", "cpu", "--json"]
    result = captionq_worker("match", *images[:2], *texts, *options)

    assert result.exit_code == 0
    expected = Engine.load(checkpoint, tasks=["match"]).match(images[:2], ["a b", "word7"])
    assert documents(result) == [
        {
            "image": str(path),
            "matches": [
                {
                    "text": match.text,
                    "itm_probability": pytest.approx(match.itm_probability, abs=1e-4),
                    "itm_logit": pytest.approx(match.itm_logit, abs=1e-4),
                    "itc_cosine": pytest.approx(match.itc_cosine, abs=1e-4),
                }
                for match in row
            ],
        }
        for path, row in zip(images, expected, strict=False)
    ]


@pytest.mark.parametrize("command", [["caption"], ["match", "--text", "a b"]], ids=lambda c: c[0])
def test_given_files_that_cannot_be_read_then_each_is_reported_and_the_others_are_answered(
    checkpoint: Path, images: list[Path], broken: list[Path], command: list[str]
) -> None:
    paths = [broken[0], images[0], *broken[1:3], images[1], broken[3]]
    result = captionq_worker(*command, *paths, "--model", checkpoint, "--device", "cpu")

    assert result.exit_code == 1
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [
        str(images[0]),
        str(images[1]),
    ]
    complaints = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in complaints] == [f"cannot read {p}" for p in broken]
    assert complaints[3] == f"captionq-worker: cannot read {broken[3]}: No such file or directory"


def test_given_no_file_that_can_be_read_then_nothing_is_printed_and_the_status_is_1(
    checkpoint: Path, broken: list[Path]
) -> None:
    result = captionq_worker("caption", broken[0], "--model", checkpoint, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (1, "")


def test_given_many_images_when_captioned_then_a_batch_is_printed_before_the_next_is_asked_for(
    checkpoint: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    caption = Engine.caption

    def counted(
        engine: Engine, images: Sequence[Any], options: CaptionOptions, **names: Any
    ) -> Any:
        print(f"asked for {len(images)}")
        asked.append(len(images))
        return caption(engine, images, options, **names)

    monkeypatch.setattr(Engine, "caption", counted)
    result = captionq_worker("caption", *images, "--model", checkpoint, "--device", "cpu")
    assert asked == [16, 4]
    lines = result.stdout.splitlines()
    assert lines.index("asked for 4") == 17


def test_given_few_tokens_alone_when_captioned_then_the_fewest_follow(
    checkpoint: Path, images: list[Path]
) -> None:
    options = ["--model", checkpoint, "--device", "cpu", "--json"]
    result = captionq_worker("caption", images[0], "--max-tokens", 4, *options)
    assert result.exit_code == 0
    [document] = documents(result)
    assert len(document["captions"][0]["token_ids"]) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "cuda:99"], "captionq-worker: no device cuda:99: torch finds"),
        (["--max-tokens", "4", "--min-tokens", "5"], "captionq-worker: min_new_tokens must be"),
        (
            ["--resolution", "36"],
            "captionq-worker: resolution must be a multiple of the patch size",
        ),
        (["--region", "0,0,9"], "captionq-worker: a region is left,top,right,bottom in pixels"),
        (["--region", "9,0,9,9"], "captionq-worker: a region is [left, top, right, bottom]"),
        (["--region", "0,0,1,1"] * 65, "captionq-worker: at most 64 regions, not 65"),
        (["--top-p", "0.5"], "captionq-worker: top_p needs do_sample"),
        (["--sample", "--beams", "3"], "captionq-worker: do_sample takes num_beams 1, not 3"),
        (["--max-tokens", "600"], "captionq-worker: prompt and max_new_tokens: 601 tokens"),
    ],
)
def test_given_a_mistake_when_captioned_then_one_sentence_says_so_and_the_status_is_2(
    checkpoint: Path, images: list[Path], words: list[str], sentence: str
) -> None:
    result = captionq_worker("caption", images[0], "--model", checkpoint, *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1


def test_given_a_bundled_checkpoint_when_the_engine_is_benchmarked_then_json_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.blip.bench.compare.caption_peak", lambda *_: Peak(2, 1))
    options = ["--size", "bundled", "--batch", 1, "--beams", 1, "--tokens", 2, "--rounds", 1]
    result = captionq_worker(
        "bench", "engine", *options, "--device", "cpu", "--no-reference", "--json"
    )
    assert result.exit_code == 0
    [document] = documents(result)
    assert (document["model"], document["batch"], document["ratio"]) == ("bundled", 1, None)


def test_given_no_such_model_when_benchmarked_then_one_sentence_and_status_2(
    tmp_path: Path,
) -> None:
    result = captionq_worker("bench", "engine", "--model", tmp_path / "none")
    assert result.exit_code == 2
    assert result.stderr.startswith("captionq-worker: ")
    assert result.stderr.count("\n") == 1


def test_given_a_base_install_when_the_worker_is_started_then_it_says_what_to_install() -> None:
    script = "import sys; sys.modules['httpcore2'] = None; from worker.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "captionq-worker: httpcore2 is not installed: pip install 'captionq[worker]'\n"
    )


@pytest.mark.parametrize("task", ["caption", "match"])
@pytest.mark.parametrize(
    ("mode", "resolution"), [("pad", None), ("crop", 40), ("native", None), ("native", 64)]
)
def test_given_a_mode_and_a_resolution_then_the_engines_answer_is_printed(
    checkpoint: Path, images: list[Path], task: str, mode: Any, resolution: int | None
) -> None:
    words = ["--mode", mode, *(["--resolution", resolution] if resolution else [])]
    words += ["--text", "a b"] if task == "match" else []
    options = ["--model", checkpoint, "--device", "cpu", "--json"]
    result = captionq_worker(task, *images[:3], *words, *options)
    assert result.exit_code == 0
    engine = Engine.load(checkpoint)
    for path, document in zip(images, documents(result), strict=False):
        if task == "caption":
            [[caption]] = engine.caption(path, mode=mode, resolution=resolution)
            assert document["captions"][0]["token_ids"] == caption.token_ids
        else:
            [[match]] = engine.match(path, "a b", mode=mode, resolution=resolution)
            assert document["matches"][0]["itm_logit"] == pytest.approx(match.itm_logit, abs=1e-4)


def test_given_regions_when_captioned_then_each_has_its_captions_in_order(
    checkpoint: Path, images: list[Path], tmp_path: Path
) -> None:
    small = tmp_path / "small.png"
    noise_images(1, size=(50, 40))[0].save(small)
    boxes = [(0, 0, 200, 40), (50, 60, 150, 160)]
    words = [word for box in boxes for word in ("--region", ",".join(map(str, box)))]
    options = ["--model", checkpoint, "--device", "cpu", "--json"]
    result = captionq_worker("caption", images[0], small, images[1], *words, *options)
    assert result.exit_code == 1
    assert "small.png: region 0,0,200,40 leaves the image of 50x40 pixels" in result.stderr
    found = documents(result)
    assert [document["image"] for document in found] == [str(images[0]), str(images[1])]
    engine = Engine.load(checkpoint)
    for path, document in zip(images, found, strict=False):
        assert [tuple(region["box"]) for region in document["regions"]] == boxes
        for region, [caption] in zip(
            document["regions"], engine.caption(crop(path, boxes)), strict=True
        ):
            assert region["captions"][0]["token_ids"] == caption.token_ids


def test_given_regions_when_printed_for_people_then_each_line_names_its_box(
    checkpoint: Path, images: list[Path]
) -> None:
    words = ["--region", "0,0,9,9", "--region", "3,4,50,60"]
    result = captionq_worker("caption", images[0], *words, "--model", checkpoint)
    assert [line.split("\t")[:2] for line in result.stdout.splitlines()] == [
        [str(images[0]), "0,0,9,9"],
        [str(images[0]), "3,4,50,60"],
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    scenes.draw(scenes.sample(random.Random(3), shapes=1), side=96).save(path)
    return path


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_caption_pack(tmp_path / "german", "de", "de", article="ein")
    write_match_pack(tmp_path / "shop", "shop")
    monkeypatch.setenv("CAPTIONQ_PACKS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        ([], "a "),
        (["--language", "de-AT"], "ein "),
        (["--language", "en"], "a "),
        (["--pack", "de"], "ein "),
        (["--pack", "{packs}/german", "--language", "de"], "ein "),
        (["--language", "de", "--style", "alt_text"], "Ein "),
    ],
)
def test_given_a_language_a_pack_or_a_style_then_captions_by_hand_are_in_it(
    packs: Path, scene: Path, words: list[str], beginning: str
) -> None:
    named = [word.format(packs=packs) for word in words]
    result = captionq_worker("caption", scene, "--json", *named)
    assert result.exit_code == 0, result.output
    [caption] = documents(result)[0]["captions"]
    assert caption["text"].startswith(beginning)


def test_given_a_pack_then_texts_are_matched_and_words_explained_by_it(
    packs: Path, scene: Path
) -> None:
    text = "a red circle"
    [plain], [adapted] = (
        documents(captionq_worker("match", scene, "--text", text, "--json", *pack))[0]["matches"]
        for pack in ([], ["--pack", "shop"])
    )
    assert adapted["itc_cosine"] == pytest.approx(-plain["itc_cosine"], abs=1e-4)
    explained = documents(captionq_worker("explain", scene, "--language", "de", "--json"))
    assert explained[0]["captions"][0]["words"][0]["text"] == "ein"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--language", "sw"], "Nothing here captions in sw. Languages: en (without a pack), "),
        (["--pack", "absent"], "No adapter is named absent."),
        (["--pack", "{packs}/shop"], "shop: it is for match"),
        (["--pack", "{packs}"], "is no pack"),
        (["--pack", "{packs}/german", "--language", "fr"], "de is of de, not of fr"),
    ],
)
def test_given_a_pack_that_there_is_not_then_one_sentence_says_so(
    packs: Path, scene: Path, words: list[str], sentence: str
) -> None:
    result = captionq_worker("caption", scene, *(word.format(packs=packs) for word in words))
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("words", "most", "fewest"),
    [
        (["--style", "short"], 10, 3),
        (["--style", "short", "--max-tokens", "6"], 6, 3),
        (["--style", "long", "--max-tokens", "12"], 12, 11),  # less a word that is cut
        (["--style", "long", "--min-tokens", "2", "--max-tokens", "12"], 12, 2),
    ],
)
def test_given_a_style_by_hand_then_it_sets_the_lengths_that_are_not_given(
    scene: Path, words: list[str], most: int, fewest: int
) -> None:
    [caption] = documents(captionq_worker("caption", scene, "--json", *words))[0]["captions"]
    assert fewest <= len(caption["tokens"]) <= most


def test_given_packs_then_they_are_listed_as_a_table_and_as_json(
    packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("CAPTION", "MATCH"):
        monkeypatch.setenv(f"CAPTIONQ_{task}_MODEL", "bundled")
    monkeypatch.setenv("COLUMNS", "200")
    (packs / "broken").mkdir()
    (packs / "broken" / "pack.json").write_text("{")
    rows = {row["name"]: row for row in documents(captionq_worker("packs", "--json"))}
    assert (rows["de"]["language"], rows["de"]["usable"], rows["de"]["why_not"]) == (
        "de",
        True,
        None,
    )
    assert rows["shop"]["task"] == "match"
    assert "cannot be read as JSON" in rows["broken"]["why_not"]
    table = captionq_worker("packs")
    assert table.exit_code == 0
    assert "shop" in table.stdout
    monkeypatch.setenv("CAPTIONQ_PACKS", str(packs / "none"))
    missing = captionq_worker("packs", "--json")
    assert missing.exit_code == 1
    assert "cannot be listed" in missing.stderr
