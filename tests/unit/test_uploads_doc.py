"""What docs/uploads.md tells to copy can be copied."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from producer import cli
from producer.event_rules import Rules
from producer.gateway.problems import MEANING, Code
from producer.gateway.settings import GatewaySettings

TEXT = (Path(__file__).parents[2] / "docs" / "uploads.md").read_text(encoding="utf-8")
JSON = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    (captionq .*?)(?: +#.*)?$", TEXT, re.MULTILINE)


def test_its_rules_are_rules(tmp_path: Path) -> None:
    (said,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "rules.toml"
    path.write_text(said)

    assert [rule.name for rule, _ in Rules.read(path).each] == ["alt-texts", "vectors"]
    assert tomllib.loads(said)


@pytest.mark.parametrize("said", JSON, ids=range(len(JSON)))
def test_its_json_is_json_and_what_is_text_within_is_json_too(said: str) -> None:
    for name, inner in json.loads(said).items():
        if name in ("Policy", "RedrivePolicy"):
            assert json.loads(inner)


def test_there_is_something_to_copy() -> None:
    assert len(JSON) == 4
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_have_their_options(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, name, *words = shlex.split(line)
    command: Any = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    if hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]

    with command.make_context(name, words) as context:
        assert context.params


def test_its_settings_and_answers_are_those_there_are() -> None:
    for name in re.findall(r"`CAPTIONQ_((?:EVENTS|SQS|SNS)_[A-Z_]+)`", TEXT):
        assert name.lower() in GatewaySettings.model_fields
    told = re.findall(r"(\d{3}) ((?:`[a-z_]+`(?:, )?)+)", TEXT)
    assert len(told) > 8
    for status, codes in told:
        for code in re.findall(r"`([a-z_]+)`", codes):
            if code not in ("repeated_message", "confirmed"):
                assert MEANING[Code(code)][0] == int(status)
