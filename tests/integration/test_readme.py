"""What the README and docs/shell.md show works as shown; what needs a gateway: test_clients.py."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.house import PNG, SCENE, House
from worker.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHOWN = README + (ROOT / "docs" / "shell.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
GATEWAY = "http://localhost:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SHOWN, re.DOTALL | re.MULTILINE)


COMMANDS = list(
    dict.fromkeys(line[2:] for block in blocks("console") for line in block.splitlines() if line)
)


@pytest.fixture(scope="module")
def desk(house: House) -> tuple[Path, dict[str, str]]:
    """A folder with scene.png and pairs.csv that workers may read, and the environment of a
    shell."""
    (house.files / "scene.png").write_bytes(PNG)
    (house.files / "pairs.csv").write_text(f"image,caption\nscene.png,{SCENE.caption}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return house.files, os.environ | house.environment | {"PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("captionq ")])
def test_given_a_producers_command_of_the_readme_it_succeeds(
    desk: tuple[Path, dict[str, str]], command: str
) -> None:
    folder, environment = desk
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("captionq-worker ")])
def test_given_a_workers_command_of_the_readme_it_succeeds(
    desk: tuple[Path, dict[str, str]], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where torch is loaded already."""
    monkeypatch.chdir(desk[0])
    done = CliRunner().invoke(cli, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()


def test_every_command_of_the_readme_is_run() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"captionq", "captionq-worker"}


@pytest.mark.parametrize("code", [code for code in blocks("python") if GATEWAY not in code])
def test_given_python_of_the_readme_it_runs(desk: tuple[Path, dict[str, str]], code: str) -> None:
    folder, environment = desk
    code = code.replace("/images/", f"{folder}/")
    code = code.replace("BROKER_URL", repr(environment["CAPTIONQ_BROKER_URL"]))
    code = code.replace(f"CAPTIONQ_{environment['CAPTIONQ_BROKER_URL']!r}", "CAPTIONQ_BROKER_URL")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in DOCS)])
def test_every_file_that_a_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_readme_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\(docs/([a-z0-9-]+\.md)", README))
    assert linked == {page.name for page in DOCS}


def test_every_setting_the_readme_names_is_one() -> None:
    from worker.settings import WorkerSettings

    named = set(re.findall(r"CAPTIONQ_([A-Z_]+[A-Z])", SHOWN)) - {"KEY"}
    assert named >= {"BROKER_URL", "MAX_BATCH"}
    assert {name.lower() for name in named} <= set(WorkerSettings.model_fields)
