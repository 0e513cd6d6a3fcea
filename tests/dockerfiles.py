"""Dockerfiles, read: their stages, and what each step says."""

import json
import re
import shlex
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@dataclass(frozen=True)
class Step:
    """One instruction, in capitals, and the rest of it in one line."""

    instruction: str
    value: str


@dataclass(frozen=True)
class Stage:
    """From a FROM to the next. `base` is an image of a registry or an earlier stage."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)


def read(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by their names, in order; one without a name is called "".

    Raises:
        ValueError: an ARG stands before the first FROM, or a FROM is none.
    """
    stages: dict[str, Stage] = {}
    parser = DockerfileParser(fileobj=BytesIO(path.read_bytes()))
    for entry in parser.structure:
        instruction, value = entry["instruction"].upper(), entry["value"]
        if instruction == "COMMENT":
            continue
        if instruction == "FROM":
            named = re.fullmatch(r"(\S+)(?: AS (\S+))?", value)
            if named is None:
                raise ValueError(f"{path.name}: FROM {value}")
            stages[named[2] or ""] = Stage(named[2] or "", named[1])
        elif not stages:
            raise ValueError(f"{path.name}: {instruction} before FROM")
        else:
            list(stages.values())[-1].steps.append(Step(instruction, value))
    return stages


def steps_to(path: Path, target: str | None = None) -> tuple[str, list[Step]]:
    """The registry's image that a target is made from, and all steps to it, its bases' first."""
    stages = read(path)
    stage = stages[target] if target is not None else list(stages.values())[-1]
    steps = stage.steps
    while stage.base in stages:
        stage = stages[stage.base]
        steps = stage.steps + steps
    return stage.base, steps


def assignments(value: str) -> dict[str, str]:
    """Names and values of an ENV or an ARG.

    >>> assignments('A=1 B="two words" C=')
    {'A': '1', 'B': 'two words', 'C': ''}
    """
    return dict(word.partition("=")[::2] for word in shlex.split(value))


def command(value: str) -> list[str]:
    """The words of a command in JSON. Raises ValueError for one in shell form."""
    words = json.loads(value)
    return [str(word) for word in words]


def health_command(value: str) -> list[str]:
    """The words of a HEALTHCHECK's command, its options left out."""
    return command(value.partition("CMD ")[2])


def copied(value: str) -> tuple[list[str], str]:
    """Sources and destination of a COPY.

    >>> copied("a.txt b ./")
    (['a.txt', 'b'], './')
    """
    *sources, destination = value.split()
    return sources, destination


def let_through(path: Path, source: str) -> bool:
    """Whether a Dockerfile's own ignore file lets a source through: all are left out but those
    named by a line with `!`."""
    ignore = path.with_name(path.name + ".dockerignore").read_text().splitlines()
    return "*" in ignore and f"!{source}" in ignore
