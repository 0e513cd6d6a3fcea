"""What --help shows by example can be typed: each line names its command and its options."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from producer import cli

COMMAND: Any = typer.main.get_command(cli.app)
EXAMPLES = [
    (name, line)
    for name, command in COMMAND.commands.items()
    for line in (command.epilog or "").splitlines()
    if "captionq " in line and re.match(r"(Examples?: )?(find .*\| |captionq )", line)
]


def test_every_command_over_many_images_has_examples() -> None:
    taught = {name for name, _ in EXAMPLES}

    assert taught >= {"caption", "embed", "match", "rank", "validate", "submit"}


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_an_example_is_of_its_command_and_has_its_options(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line[line.index("captionq ") :])
    end = words.index("|") if "|" in words else len(words)

    assert words[:2] == ["captionq", name]
    with COMMAND.commands[name].make_context(name, words[2:end]) as context:
        assert context.params
