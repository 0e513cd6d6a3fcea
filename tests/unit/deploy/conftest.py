"""What is deployed, read once."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from producer.gateway.settings import GatewaySettings
from tests.dockerfiles import ROOT, Step, assignments, steps_to
from tests.image_steps import IMAGES
from worker.settings import WorkerSettings

SETTINGS = frozenset(
    f"CAPTIONQ_{name.upper()}"
    for name in WorkerSettings.model_fields | GatewaySettings.model_fields
)
"""Every variable that captionq reads."""

BUILT = frozenset({"captionq-worker", "captionq-producer", "captionq-flower"})
"""Names of the images that docker/ makes."""

OVERLAYS = ("gpu", "tls", "s3", "baked")


def tool(name: str) -> str:
    """A command of the environment that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def steps(image: str) -> list[Step]:
    """All steps of an image of docker/, "captionq-worker" or "worker"."""
    dockerfile, target = IMAGES[image.removeprefix("captionq-")]
    return steps_to(ROOT / "docker" / dockerfile, target)[1]


def said(image: str, instruction: str) -> list[str]:
    """What an image's steps of a kind say."""
    return [step.value for step in steps(image) if step.instruction == instruction]


def environment(image: str) -> dict[str, str]:
    """The variables that an image sets."""
    return {name: value for step in said(image, "ENV") for name, value in assignments(step).items()}


@cache
def composed(*overlays: str, root: Path = ROOT) -> dict[str, Any]:
    """compose.yaml with files on top, as Docker Compose itself reads them, every profile on.

    root: the folder that has docker/.

    Raises:
        subprocess.CalledProcessError: they break the specification; what is wrong is printed.
    """
    example = (ROOT / "docker/example.env").read_text()
    asked = {line.partition("=")[0] for line in example.splitlines() if line.endswith("=")}
    filled = {name: "operator:s3cret" for name in asked if "PASSWORD" in name}
    files = [f"docker/compose{'.' + name if name else ''}.yaml" for name in ("", *overlays)]
    words = [word for file in files for word in ("-f", file)]
    command = [tool("docker-compose"), "--env-file", "docker/example.env", *words]
    read = subprocess.run(
        [*command, "--profile", "*", "config"],
        cwd=root,
        env={"PATH": os.environ["PATH"]} | filled,
        check=True,
        stdout=subprocess.PIPE,
    )
    return dict(yaml.safe_load(read.stdout))
