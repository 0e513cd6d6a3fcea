"""Whole runs: what they learn, write and refuse, and going on with one that was ended anywhere."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipForConditionalGeneration

from producer.manifest.interrupt import Interrupt
from tests.blip_checkpoints import load_quietly, noise_images, pixel_values
from tests.blip_packs import own_tokenizer
from tests.finetuned import captions, losses, request, write_pairs
from worker.blip import Engine
from worker.blip.errors import CheckpointError
from worker.blip.pack_card import PackCard, read_card
from worker.training.finetune import folder as run_folder
from worker.training.finetune import pictures as run_pictures
from worker.training.finetune.loop import Interrupted
from worker.training.finetune.run import Request
from worker.training.finetune.run import finetune as run


def finetune(asked: Request, interrupted: Callable[[], bool] = lambda: False) -> PackCard:
    card = run(asked, interrupted)
    assert card is not None  # this is the only process
    return card


class Killed(BaseException):
    """As by kill -9: nothing that follows is run."""


def killed_at(step: int) -> Callable[[], bool]:
    """Ends a run at once, after `step` more steps, nothing saved."""
    left = iter(range(step - 1))

    def ask() -> bool:
        if next(left, None) is None:
            raise Killed
        return False

    return ask


def said(engine: Engine, images: list[Image.Image], **options: Any) -> list[str]:
    rows = engine.caption(images, num_beams=1, min_new_tokens=0, max_new_tokens=12, **options)
    return [captions[0].text for captions in rows]


@pytest.fixture(scope="module")
def learned(tiny: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that knows its twelve pairs by heart."""
    output = tmp_path_factory.mktemp("learned") / "learned"
    finetune(request(pairs, output, tiny, steps=150, batch=12, language="de"))
    return output


def test_a_pack_learns_its_captions_by_heart_and_the_engine_says_them(
    learned: Path, tiny: Path
) -> None:
    engine = Engine.load(tiny, tasks=["caption"])
    images = noise_images(12)

    assert said(engine, images, packs=engine.load_pack(learned)) == captions(12)
    assert said(engine, images) != captions(12)


def test_peft_loads_the_files_and_says_what_the_engine_says(learned: Path, tiny: Path) -> None:
    model = load_quietly(BlipForConditionalGeneration, tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        adapted = PeftModel.from_pretrained(model, str(learned)).eval()
    engine = Engine.load(tiny, tasks=["caption"])
    unseen = noise_images(6, seed=99)

    ids = adapted.generate(pixel_values=pixel_values(tiny, unseen), max_new_tokens=12, num_beams=1,
                           do_sample=False)  # fmt: skip

    texts = engine._tokenizer
    expected = [texts.decode(row[: row.index(102)] if 102 in row else row) for row in ids.tolist()]
    assert said(engine, unseen, packs=engine.load_pack(learned)) == expected


def test_a_pack_is_lora_alone_with_cards_for_programs_and_people(learned: Path) -> None:
    names = set(load_file(learned / "adapter_model.safetensors"))
    card = read_card(learned)

    assert {path.name for path in learned.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "pack.json",
    }  # fmt: skip
    assert all(".lora_" in name for name in names)
    # two layers, each with q, k, v, output of both attentions and the MLP's two; A and B
    assert len(names) == 2 * 10 * 2
    assert not any("vision" in name for name in names)
    assert (card.name, card.task, card.language) == ("learned", "caption", "de")
    assert card.training["peak_memory_mib"] > 0
    assert card.training["seconds"] > 0
    assert card.data["rows"] == 12
    readme = (learned / "README.md").read_text()
    assert "language: de" in readme
    assert f"peak_memory_mib: {card.training['peak_memory_mib']:,}" in readme


def test_two_runs_are_equal_to_the_bit_and_another_seed_is_not(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        finetune(request(pairs, tmp_path / name, tiny, seed=seed, dropout=0.2))
    one, two, three = (losses(tmp_path / name) for name in ("one", "two", "three"))

    assert one == two
    assert one != three
    weights = [(tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("one", "two")]
    assert weights[0] == weights[1]


RUNS: dict[str, dict[str, Any]] = {
    "lora": {"dropout": 0.2},
    "accumulated, validated": {"accumulate": 2, "validation": 0.3, "validate_every": 3},
    "full": {"full": True, "rate": 1e-3},
    "match": {"task": "match", "validation": 0.3},
}


@pytest.mark.parametrize("given", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("every_s", [0.0, 1e9], ids=["saving each step", "saving nothing"])
def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_bits(
    given: dict[str, Any], every_s: float, tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    whole = request(pairs, tmp_path / "whole", tiny, name="run", **given)
    broken = replace(whole, output=tmp_path / "broken", save_every_s=every_s)
    finetune(whole)

    for steps in (5, 2):
        with pytest.raises(Killed):
            finetune(broken, killed_at(steps))
    finetune(broken)

    assert losses(broken.output) == losses(whole.output)
    assert len({row["step"] for row in losses(whole.output)}) == 12
    file = "model.safetensors" if given.get("full") else "adapter_model.safetensors"
    assert (broken.output / file).read_bytes() == (whole.output / file).read_bytes()


@pytest.mark.parametrize("moment", ["torch.save", "Path.replace", "output"])
def test_being_killed_while_writing_leaves_what_was_there(
    moment: str, tiny: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = request(pairs, tmp_path / "whole", tiny, name="run")
    broken = replace(whole, output=tmp_path / "broken", save_every_s=0.0)
    finetune(whole)
    count = iter(range(4))

    def dying(call: Any) -> Any:
        def call_or_die(*args: Any, **kwargs: Any) -> Any:
            if moment == "output" or next(count, None) is None:
                raise Killed
            return call(*args, **kwargs)

        return call_or_die

    with monkeypatch.context() as patch:
        if moment == "torch.save":
            patch.setattr(run_folder.torch, "save", dying(torch.save))
        elif moment == "output":
            patch.setattr("worker.training.finetune.output.readme", dying(None))
        else:
            patch.setattr(Path, "replace", dying(Path.replace))
        with pytest.raises(Killed):
            finetune(broken)
    assert not broken.output.exists()
    finetune(broken)

    assert losses(broken.output) == losses(whole.output)
    files = [p / "adapter_model.safetensors" for p in (broken.output, whole.output)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_a_signal_keeps_the_run_after_the_step_that_it_is_in(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    asked = request(pairs, tmp_path / "run", tiny)
    answers = iter([False, False, True])

    with pytest.raises(Interrupted):
        finetune(asked, lambda: next(answers))
    assert [row["step"] for row in losses(asked.output)] == [1, 2, 3]
    assert not asked.output.exists()

    finetune(asked)
    assert [row["step"] for row in losses(asked.output)] == list(range(1, 13))
    assert {path.name for path in (tmp_path / "run.training").iterdir()} == {
        "losses.jsonl", "run.json", "tensorboard",
    }  # fmt: skip


def test_kill_9_and_the_same_command_again_come_to_the_same_bits(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    def command(output: str) -> list[str]:
        return [sys.executable, "-m", "worker", "finetune", str(pairs), "-o",
                str(tmp_path / output), "--model", str(tiny), "--name", "run", "--steps", "120",
                "--batch", "4", "--save-every", "0.5", "--cpu"]  # fmt: skip

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command("broken"), env=environment, stderr=subprocess.DEVNULL)
    log = tmp_path / "broken.training" / "losses.jsonl"
    deadline = time.monotonic() + 90
    while not log.exists() or log.read_bytes().count(b"\n") < 30:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = log.read_bytes().count(b"\n")
    assert 30 <= done < 120

    for output in ("broken", "whole"):
        ended = subprocess.run(command(output), env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert "MiB of memory" in ended.stderr

    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_two_processes_learn_from_the_rows_that_one_does(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    shared = ["-m", "worker", "finetune", str(pairs), "--model", str(tiny), "--name", "run",
              "--cpu", "--steps", "6", "--batch", "4", "--accumulate", "2", "--validation", "0.3",
              "-o"]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
              "2"]  # fmt: skip

    two = subprocess.run([*launch, *shared, str(tmp_path / "two")], capture_output=True, text=True)
    one = subprocess.run(
        [sys.executable, *shared, str(tmp_path / "one")], capture_output=True, text=True
    )

    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout.splitlines() == [str(tmp_path / "two")]
    assert read_card(tmp_path / "two").training["processes"] == 2
    for ours, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_two_processes_never_train_the_same_run(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    asked = request(pairs, tmp_path / "run", tiny)
    refused: list[str] = []

    def meanwhile() -> bool:
        if not refused:
            with pytest.raises(ValueError, match="another process trains") as raised:
                finetune(asked)
            refused.append(str(raised.value))
        return False

    finetune(asked, meanwhile)

    assert refused
    assert [row["step"] for row in losses(asked.output)] == list(range(1, 13))


def test_a_signal_before_the_first_step_ends_the_run_at_once(
    tiny: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(pairs, tmp_path / "run", tiny)
    read = run_pictures.FilePicture.read

    def signalled(picture: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGTERM)
        return read(picture)

    with monkeypatch.context() as patch, Interrupt() as interrupt:
        patch.setattr(run_pictures.FilePicture, "read", signalled)
        with pytest.raises(KeyboardInterrupt):
            run(asked, lambda: interrupt.came, interrupt.waiting)

    finetune(asked)
    assert asked.output.exists()


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another rank": ({"rank": 8}, "--rank was 4 and is 8"),
    "another seed": ({"seed": 3}, "--seed was 0 and is 3"),
    "more steps": ({"steps": 13}, "--steps was 12 and is 13"),
    "a validation set": ({"validation": 0.3}, "validation was"),
    "another name": ({"name": "other"}, "name was 'run' and is 'other'"),
}


@pytest.mark.parametrize(("given", "words"), OTHERS.values(), ids=OTHERS)
def test_going_on_with_other_settings_is_refused_with_what_differs(
    given: dict[str, Any], words: str, tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    with pytest.raises(Killed):
        finetune(request(pairs, output, tiny), killed_at(2))

    with pytest.raises(ValueError, match=words):
        finetune(request(pairs, output, tiny, **given))


def test_going_on_with_other_data_or_another_base_is_refused(tiny: Path, tmp_path: Path) -> None:
    texts = captions(6)
    manifest = write_pairs(tmp_path / "data", texts)
    output = tmp_path / "run"
    with pytest.raises(Killed):
        finetune(request(manifest, output, tiny), killed_at(2))

    write_pairs(tmp_path / "data", [*texts[:-1], "word8 word8"])
    with pytest.raises(ValueError, match="data was"):
        finetune(request(manifest, output, tiny))


def test_a_finished_output_is_not_written_again(learned: Path, tiny: Path, pairs: Path) -> None:
    with pytest.raises(ValueError, match="is there already"):
        finetune(request(pairs, learned, tiny))


def with_bad_image(folder: Path) -> Path:
    manifest = write_pairs(folder, captions(6))
    (folder / "2.png").write_bytes(b"no image")
    return manifest


@pytest.mark.parametrize("cache_gib", [1.0, 0.0])
def test_an_image_that_cannot_be_read_is_named_and_the_run_goes_on_or_ends(
    cache_gib: float, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = with_bad_image(tmp_path / "data")

    card = finetune(request(manifest, tmp_path / "run", tiny, cache_gib=cache_gib))

    assert card.data["rows"] == 5
    assert card.data["left_out"] == 1
    assert "left out 2.png: image_unsupported_format" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"2\.png: image_unsupported_format"):
        finetune(request(manifest, tmp_path / "strict", tiny, cache_gib=cache_gib, strict=True))


def test_images_encoded_once_and_when_they_are_needed_teach_the_same(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    for name, gib in (("kept", 1.0), ("live", 0.0)):
        finetune(request(pairs, tmp_path / name, tiny, cache_gib=gib))

    kept, live = (
        torch.tensor([row["loss"] for row in losses(tmp_path / name)]) for name in ("kept", "live")
    )
    torch.testing.assert_close(kept, live, atol=1e-4, rtol=1e-4)


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


def test_rows_of_other_languages_are_left_aside_and_told_of(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_pairs(tmp_path / "data", captions(4), language=["de", "de-AT", "fr", "fr"])

    card = finetune(request(manifest, tmp_path / "run", tiny, steps=1, language="de"))

    assert card.data["rows"] == 1
    assert "left aside: fr (2), de-AT (1)" in capsys.readouterr().err


def test_an_early_stop_keeps_the_best_and_says_when_it_was(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    asked = request(pairs, tmp_path / "run", tiny, steps=80, rate=5e-2, warmup=0.0,
                    validation=0.4, validate_every=2, patience=3)  # fmt: skip

    card = finetune(asked)

    figures = {row["step"]: row["validation_loss"] for row in losses(asked.output)
               if "validation_loss" in row}  # fmt: skip
    best = min(figures, key=figures.__getitem__)
    assert card.training["steps"] == best + 6 < 80
    assert card.training["seconds"] > 0
    assert card.training["best_step"] == best
    assert card.training["validation_loss"] == figures[best]

    again = replace(asked, output=tmp_path / "again", settings=replace(
        asked.settings, steps=best, patience=0, validate_every=best))  # fmt: skip
    assert again.settings.warmup == 0.0
    assert card.training["validation_loss"] <= min(figures.values())


def test_a_run_of_its_own_tokenizer_trains_its_words_and_the_engine_writes_them(
    tiny: Path, tmp_path: Path
) -> None:
    own_tokenizer(120).save_pretrained(tmp_path / "words")
    texts = [f"äpfel wort{i} über wort{(i * 7) % 20}" for i in range(8)]
    manifest = write_pairs(tmp_path / "data", texts, language=["de"] * 8)
    asked = request(manifest, tmp_path / "pack", tiny, tokenizer=tmp_path / "words", steps=200,
                    batch=8, rate=2e-2)  # fmt: skip

    card = finetune(asked)

    engine = Engine.load(tiny, tasks=["caption"])
    pack = engine.load_pack(tmp_path / "pack")
    rows = engine.caption(noise_images(8), packs=pack, num_beams=1, min_new_tokens=0,
                          max_new_tokens=30)  # fmt: skip
    assert [row[0].text for row in rows] == texts
    state = load_file(tmp_path / "pack" / "adapter_model.safetensors")
    prefix = "base_model.model.text_decoder."
    assert state[f"{prefix}bert.embeddings.word_embeddings.weight"].shape == (120, 64)
    assert state[f"{prefix}cls.predictions.bias"].shape == (120,)
    assert card.language == "de"
    assert (tmp_path / "pack" / "tokenizer.json").exists()


@pytest.mark.parametrize("words", [False, True])
def test_a_full_run_writes_a_checkpoint_that_the_engine_and_transformers_load(
    words: bool, tiny: Path, tmp_path: Path
) -> None:
    texts = captions(8)
    given: dict[str, Any] = {}
    if words:
        own_tokenizer(120).save_pretrained(tmp_path / "words")
        texts = [f"wort{i} wort{(i * 7) % 20}" for i in range(8)]
        given = {"tokenizer": tmp_path / "words"}
    manifest = write_pairs(tmp_path / "data", texts)

    finetune(request(manifest, tmp_path / "full", tiny, full=True, steps=200, batch=8, rate=2e-3,
                     **given))  # fmt: skip

    engine = Engine.load(tmp_path / "full")
    assert said(engine, noise_images(8)) == texts
    before, after = (load_file(p / "model.safetensors") for p in (tiny, tmp_path / "full"))
    if words:  # matching cannot read with them
        before = {
            n: t for n, t in before.items() if n.startswith(("vision_model.", "text_decoder."))
        }
    assert before.keys() == after.keys()
    same = {name for name in before if before[name].equal(after[name])}
    assert same == {name for name in before if not name.startswith("text_decoder.")}
    load_quietly(BlipForConditionalGeneration, tmp_path / "full")


def test_matching_trains_its_heads_and_tells_labelled_pairs_apart(
    tiny: Path, tmp_path: Path
) -> None:
    texts, rng = captions(12), random.Random(0)
    wrong = [rng.choice([t for t in texts if t != text]) for text in texts]
    manifest = write_pairs(tmp_path / "data", texts)
    with manifest.open("a") as file:
        for number, text in enumerate(wrong):
            row = {"image": f"{number}.png", "caption": text, "match": "false"}
            file.write(json.dumps(row) + "\n")

    card = finetune(request(manifest, tmp_path / "pack", tiny, task="match", steps=150, batch=24))

    engine = Engine.load(tiny, tasks=["match"])
    pack = engine.load_pack(tmp_path / "pack")
    asked = [[right, other] for right, other in zip(texts, wrong, strict=True)]
    found = engine.match(noise_images(12), asked, pack=pack)
    assert all(right.itm_probability > 0.9 > 0.1 > other.itm_probability for right, other in found)
    names = set(load_file(tmp_path / "pack" / "adapter_model.safetensors"))
    heads = {f"base_model.model.{head}.{part}" for head in ("itm_head", "vision_proj", "text_proj")
             for part in ("weight", "bias")}  # fmt: skip
    assert heads == {name for name in names if ".lora_" not in name}
    assert card.task == "match"
    assert card.data["labelled_false"] == 12


def test_bfloat16_and_gradient_checkpointing_train_as_well(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    plain = request(pairs, tmp_path / "plain", tiny)
    lean = request(pairs, tmp_path / "lean", tiny, bf16=True, gradient_checkpointing=True)
    finetune(plain)
    AcceleratorState._reset_state(reset_partial_state=True)
    finetune(lean)

    ends = [losses(run.output)[-1]["loss"] for run in (plain, lean)]
    assert ends[0] != ends[1]
    assert ends[1] == pytest.approx(ends[0], rel=0.2)


def test_a_loss_that_is_no_number_ends_the_run_with_advice(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--rate"):
        finetune(request(pairs, tmp_path / "run", tiny, rate=1e30, full=True, warmup=0.0))


def test_a_checkpoint_without_the_tasks_heads_is_refused(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    from tests.blip_checkpoints import TINY, write_random_checkpoint

    captioner = write_random_checkpoint(tmp_path / "captioner", TINY, ["caption"])

    with pytest.raises(CheckpointError, match="itm_head"):
        finetune(request(pairs, tmp_path / "run", captioner, task="match"))
