"""docker/healthy.py, by which images tell an engine how they are; and steps that are not known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clean_root import Image
from tests.dockerfiles import ROOT
from tests.image_steps import build
from tests.servers import Reply, ScriptedHttp


def healthy(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "docker/healthy.py", *words],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False), (404, False)])
def test_given_an_answer_its_status_says_whether_all_is_well(status: int, well: bool) -> None:
    with ScriptedHttp({"/healthz": [Reply(status)]}) as server:
        assert (healthy(str(server.port)).returncode == 0) is well


def test_given_the_name_of_a_variable_and_a_proxy_the_process_itself_is_asked_on_that_port() -> (
    None
):
    with ScriptedHttp({"/healthcheck": [Reply(200)]}) as server:
        environment = {"PORT": str(server.port), "http_proxy": "http://127.0.0.1:9"}
        assert healthy("PORT", "/healthcheck", **environment).returncode == 0
        assert server.hits("/healthcheck") == 1


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_given_a_worker_of_several_devices_each_of_its_processes_is_asked(
    status: int, well: bool
) -> None:
    with ScriptedHttp({"/healthz": [Reply(status)]}) as second, ScriptedHttp() as first:
        said = json.dumps({"status": "ok", "faults": [], "ports": [first.port, second.port]})
        first.routes["/healthz"] = [Reply(200, said.encode())]
        assert (healthy(str(first.port)).returncode == 0) is well
        assert (first.hits("/healthz"), second.hits("/healthz")) == (1, 1)


def test_given_nobody_who_listens_it_says_so() -> None:
    asked = healthy("1")
    assert asked.returncode == 1
    assert "/healthz on port 1" in asked.stderr


def test_given_a_step_that_is_not_known_it_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.Dockerfile"
    path.write_text("FROM base\nENV A=1\nONBUILD RUN true\n")
    image = Image(tmp_path, {})
    with pytest.raises(ValueError, match="ONBUILD"):
        build(image, path, None)
    assert image.environment == {"A": "1"}


def test_given_a_copy_that_the_ignore_file_keeps_away_the_step_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.Dockerfile"
    path.write_text("FROM base\nCOPY README.md ./\n")
    path.with_name("a.Dockerfile.dockerignore").write_text("*\n!LICENSE\n")
    with pytest.raises(ValueError, match=r"keeps README\.md away"):
        build(Image(tmp_path, {}), path, None)
