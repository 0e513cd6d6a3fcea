"""What cannot be trained, in one sentence, and nothing written."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.blip_checkpoints import (
    TINY,
    write_random_checkpoint,
)
from tests.finetuned import captions, finetune, request, write_pairs
from worker.blip.errors import CheckpointError


def test_what_is_there_is_not_written_over(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "pack"
    output.mkdir()
    (output / "pack.json").touch()

    with pytest.raises(ValueError, match="is there already"):
        finetune(request(pairs, output, tiny))


NOTHING: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "no rows at all": ([], {}, "no row to train on"),
    "captions without words": ([{"image": "0.png", "caption": "  "}], {}, "no row to train on"),
    "another language": (
        [{"image": "0.png", "caption": "word1", "language": "de"}],
        {"language": "fr"},
        r"no row is of the language fr; the data has de \(1\)",
    ),
    "words that the tokenizer lacks": (
        [{"image": "0.png", "caption": "红 红 红 红 红 红 红 红 红 红 红 红"}],
        {},
        "--tokenizer",
    ),
    "patience without a validation set": (
        [{"image": "0.png", "caption": "word1"}],
        {"patience": 2},
        "--patience needs --validation",
    ),
    "a share of too few": (
        [{"image": "0.png", "caption": "word1"}],
        {"validation": 0.0001},
        "validation set is empty",
    ),
    "targets that are not there": (
        [{"image": "0.png", "caption": "word1"}],
        {"targets": "nothing"},
        "--targets: no linear module",
    ),
    "targets that are not linear": (
        [{"image": "0.png", "caption": "word1"}],
        {"targets": r".*word_embeddings"},
        "word_embeddings is not linear",
    ),
    "targets that no pack may adapt": (
        [{"image": "0.png", "caption": "word1"}],
        {"targets": r"text_decoder\.cls\.predictions\.decoder"},
        r"no pack can adapt text_decoder\.cls\.predictions\.decoder",
    ),
    "a rank above the width": (
        [{"image": "0.png", "caption": "word1"}],
        {"rank": 65},
        "--rank 65 is above the 64 of text_decoder",
    ),
    "a tokenizer for matching": (
        [{"image": "0.png", "caption": "word1"}],
        {"task": "match", "tokenizer": Path("words")},
        "--tokenizer is for captions",
    ),
    "a name that no pack has": (
        [{"image": "0.png", "caption": "word1"}],
        {"name": "My pack!"},
        "a pack's name",
    ),
}


@pytest.mark.parametrize(("rows", "given", "words"), NOTHING.values(), ids=NOTHING)
def test_what_cannot_be_trained_is_refused_in_one_sentence(
    rows: list[dict[str, Any]], given: dict[str, Any], words: str, tiny: Path, tmp_path: Path
) -> None:
    manifest = write_pairs(tmp_path / "data", captions(1))
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    with pytest.raises((ValueError, CheckpointError), match=words):
        finetune(request(manifest, tmp_path / "run", tiny, **given))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run_with_advice(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--rate"):
        finetune(request(pairs, tmp_path / "run", tiny, rate=1e30, full=True, warmup=0.0))


def test_a_checkpoint_without_the_tasks_heads_is_refused(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    captioner = write_random_checkpoint(tmp_path / "captioner", TINY, ["caption"])

    with pytest.raises(CheckpointError, match="itm_head"):
        finetune(request(pairs, tmp_path / "run", captioner, task="match"))
