"""Going on with a run that was ended anywhere, to the same bits; equal runs, and other ones."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.finetuned import captions, finetune, losses, request, write_pairs
from tests.fork_server import fork_server
from worker.blip.pack_card import read_card
from worker.cli import cli
from worker.training.finetune import folder as run_folder
from worker.training.finetune.loop import Interrupted

IMPORTED = ("worker.cli", "worker.training.finetune.run", "peft", "torch._dynamo")
"""What each command that trains imports."""


class Killed(BaseException):
    """As by kill -9: nothing that follows is run."""


def killed_at(step: int, images: int = 12) -> Callable[[], bool]:
    """Ends a run at once, after all of its images and `step` more steps, nothing saved."""
    left = iter(range(images + step - 1))

    def ask() -> bool:
        if next(left, None) is None:
            raise Killed
        return False

    return ask


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


RUNS: dict[str, tuple[dict[str, Any], float]] = {
    "lora, a state after each step": ({"dropout": 0.2}, 0.0),
    "lora, no state at all": ({"dropout": 0.2}, 1e9),
    "accumulated, validated": ({"accumulate": 2, "validation": 0.3, "validate_every": 3}, 0.0),
    "full": ({"full": True, "rate": 1e-3}, 0.0),
    "match": ({"task": "match", "validation": 0.3}, 0.0),
}


@pytest.mark.parametrize(("given", "every_s"), RUNS.values(), ids=RUNS)
def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_bits(
    given: dict[str, Any], every_s: float, tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    whole = request(pairs, tmp_path / "whole", tiny, name="run", **given)
    broken = replace(whole, output=tmp_path / "broken", save_every_s=every_s)
    finetune(whole)

    for steps in (5, 2):
        with pytest.raises(Killed):
            finetune(broken, killed_at(steps))
        assert losses(broken.output)
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
    answers = iter([*[False] * 12, False, False, True])  # to each image, to each step

    with pytest.raises(Interrupted):
        finetune(asked, lambda: next(answers))
    assert [row["step"] for row in losses(asked.output)] == [1, 2, 3]
    assert not asked.output.exists()

    finetune(asked)
    assert [row["step"] for row in losses(asked.output)] == list(range(1, 13))
    assert {path.name for path in (tmp_path / "run.training").iterdir()} == {
        "losses.jsonl", "run.json", "tensorboard",
    }  # fmt: skip


def test_a_signal_before_the_first_step_ends_the_run_at_an_image(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    asked = request(pairs, tmp_path / "run", tiny)
    answers = iter([False, True])

    with pytest.raises(Interrupted):
        finetune(asked, lambda: next(answers))

    finetune(asked)
    assert len(losses(asked.output)) == 12


@pytest.mark.timeout(600)  # two processes begin, one after the other
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


def test_kill_9_and_the_same_command_again_come_to_the_same_bits(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    whole = request(pairs, tmp_path / "whole", tiny, name="run", steps=30)
    given = whole.settings
    command = ["worker", "finetune", str(pairs), "--model", str(tiny),
               "--name", "run", "--steps", "30", "--batch", str(given.batch),
               "--rate", str(given.rate), "--rank", str(given.rank), "--save-every", "0.2", "--cpu",
               "-o", str(tmp_path / "broken")]  # fmt: skip
    server = fork_server(*IMPORTED)
    process = server.start(*command, stderr=subprocess.DEVNULL)
    log = tmp_path / "broken.training" / "losses.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 10:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 10 <= log.read_bytes().count(b"\n") < 30

    ended = server.run(*command)
    finetune(whole)

    assert ended.returncode == 0, ended.stderr
    assert "MiB of memory" in ended.stderr
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


@pytest.mark.timeout(600)
def test_two_processes_learn_from_the_rows_that_one_does(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    shared = ["-m", "worker", "finetune", str(pairs), "--model", str(tiny), "--name", "run",
              "--cpu", "--steps", "6", "--batch", "4", "--accumulate", "2", "--validation", "0.3",
              "-o"]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
              "2"]  # fmt: skip

    two = subprocess.run([*launch, *shared, str(tmp_path / "two")], capture_output=True, text=True)
    one = CliRunner().invoke(cli, [*shared[2:], str(tmp_path / "one")])

    assert one.exit_code == two.returncode == 0, two.stderr
    assert two.stdout.splitlines() == [str(tmp_path / "two")]
    assert read_card(tmp_path / "two").training["processes"] == 2
    for ours, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


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
        finetune(request(pairs, output, tiny, save_every_s=0.0), killed_at(2))

    with pytest.raises(ValueError, match=words):
        finetune(request(pairs, output, tiny, **given))


def test_going_on_with_other_data_or_another_base_is_refused(tiny: Path, tmp_path: Path) -> None:
    texts = captions(6)
    manifest = write_pairs(tmp_path / "data", texts)
    output = tmp_path / "run"
    with pytest.raises(Killed):
        finetune(request(manifest, output, tiny, save_every_s=0.0), killed_at(2, images=6))

    write_pairs(tmp_path / "data", [*texts[:-1], "word8 word8"])
    with pytest.raises(ValueError, match="data was"):
        finetune(request(manifest, output, tiny))


def test_a_run_that_kept_no_state_yet_may_be_begun_otherwise(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        finetune(request(pairs, tmp_path / "run", tiny), killed_at(2))

    finetune(request(pairs, tmp_path / "run", tiny, steps=5))

    assert [row["step"] for row in losses(tmp_path / "run")] == [1, 2, 3, 4, 5]
