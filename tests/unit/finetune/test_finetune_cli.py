"""captionq-worker finetune: what its flags ask for, and how it ends."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.cli import cli
from worker.training.finetune import run as run_module
from worker.training.finetune.loop import Interrupted
from worker.training.finetune.request import Request


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the command asks for, which is not run: it ends as if by a signal."""
    requests: list[Request] = []

    def interrupted(request: Request, _: Callable[[], bool]) -> None:
        requests.append(request)
        raise Interrupted

    monkeypatch.setattr(run_module, "finetune", interrupted)
    return requests


def test_a_run_that_a_signal_ended_says_how_to_go_on(asked: list[Request]) -> None:
    ended = CliRunner().invoke(cli, ["finetune", "pairs.csv", "-o", "packs/De"])

    assert ended.exit_code == 130
    assert "packs/De.training: the same command goes on with it" in ended.stderr
    assert asked[0].name == "de"
    assert asked[0].model.endswith("scenes")
    assert (asked[0].settings.rank, asked[0].settings.alpha) == (16, 32)
    assert asked[0].settings.rate == 5e-4


def test_flags_are_settings(asked: list[Request]) -> None:
    flags = (
        "--task match --language de --rank 4 --dropout 0.1 --validation 0.1 --patience 3 --bf16 "
        "--gradient-checkpointing --seed 5 --strict --column photo --model some/model"
    )
    CliRunner().invoke(cli, ["finetune", "pairs.csv", "-o", "x", *flags.split()])
    CliRunner().invoke(cli, ["finetune", "pairs.csv", "-o", "x", "--full", "--validation", "v.csv"])

    lora, full = asked
    assert (lora.settings.task, lora.language, lora.validation) == ("match", "de", 0.1)
    assert (lora.settings.rank, lora.settings.alpha, lora.settings.dropout) == (4, 8, 0.1)
    assert lora.settings.bf16
    assert lora.settings.gradient_checkpointing
    assert (lora.settings.seed, lora.settings.patience, lora.strict) == (5, 3, True)
    assert (lora.columns.image, lora.model) == ("photo", "some/model")
    assert full.settings.full
    assert full.settings.rate == 2e-5
    assert full.validation == Path("v.csv")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--validation 1.5", "--validation is a share between 0 and 1"),
        ("--rank 0", "--rank is 1 or more"),
        ("--full --targets x", "--full trains everything"),
    ],
)
def test_flags_that_cannot_be_are_refused_in_a_sentence(flags: str, words: str) -> None:
    ended = CliRunner().invoke(cli, ["finetune", "pairs.csv", "-o", "x", *flags.split()])

    assert ended.exit_code == 2
    assert words in ended.stderr
