"""docker/: what it names exists here."""

import re
from pathlib import Path

import pytest
import yaml

from worker.settings import WorkerSettings
from worker.shutdown import END_TIMEOUT_S

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def test_compose_runs_redis_a_worker_and_flower() -> None:
    assert set(COMPOSE["services"]) == {"redis", "worker", "flower"}


def test_every_image_compose_builds_has_its_dockerfile() -> None:
    built = [s["build"] for s in COMPOSE["services"].values() if "build" in s]
    assert len(built) == 2
    for build in built:
        context = (ROOT / "docker" / build["context"]).resolve()
        assert context == ROOT
        assert (context / build["dockerfile"]).is_file()


def test_every_setting_compose_names_is_one() -> None:
    named = [n for s in COMPOSE["services"].values() for n in s.get("environment", {})]
    ours = {n.removeprefix("CAPTIONQ_").lower() for n in named if n.startswith("CAPTIONQ_")}
    assert ours
    assert ours <= set(WorkerSettings.model_fields)


def test_a_worker_gets_longer_to_stop_than_it_lets_its_last_jobs_run() -> None:
    grace_s = int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > WorkerSettings.model_fields["shutdown_timeout_s"].default + END_TIMEOUT_S


def test_only_flower_is_published_and_only_on_loopback() -> None:
    published = {n: s["ports"] for n, s in COMPOSE["services"].items() if "ports" in s}
    assert list(published) == ["flower"]
    assert all(port.startswith("127.0.0.1:") for port in published["flower"])


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_exists_and_does_not_run_as_root(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


def test_the_workers_user_may_write_where_its_models_are_kept() -> None:
    """Docker gives a fresh volume the owner that its mount point has in the image."""
    (volume,) = COMPOSE["services"]["worker"]["volumes"]
    text = (ROOT / "docker/worker.Dockerfile").read_text()
    as_user = text.partition("USER captionq\n")[2]
    home = re.search(r"^ENV HF_HOME=(.+)$", as_user, re.MULTILINE)
    assert home is not None
    assert volume == f"models:{home[1]}"
    assert 'mkdir -p "$HF_HOME"' in as_user
