"""What docker/compose*.yaml are told: docker/.env, its passwords, and files of settings."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.dockerfiles import ROOT
from tests.unit.deploy.conftest import composed, environment, tool

PASSWORDS = {
    *(f"REDIS_{user}_PASSWORD" for user in ("WORKER", "GATEWAY", "FLOWER", "OPERATOR", "PRODUCER")),
    *("FLOWER_USER_PASSWORD", "GRAFANA_PASSWORD", "S3_PASSWORD"),
}


def test_without_its_passwords_nothing_starts_and_none_is_in_the_files() -> None:
    for path in sorted((ROOT / "docker").glob("compose*.yaml")):
        for url in re.findall(r"rediss?://[^@]+@", path.read_text()):
            assert re.fullmatch(r"rediss?://(\w+):\$\{REDIS_\w+_PASSWORD:\?[^}]+\}@", url), url
        needed = set(re.findall(r"\$\{(\w+):\?", path.read_text()))
        assert needed <= PASSWORDS
        for name in re.findall(r"\w+_PASSWORD", path.read_text()):
            assert name in PASSWORDS | {"GF_SECURITY_ADMIN_PASSWORD"}
    ran = subprocess.run(
        [tool("docker-compose"), "-f", "docker/compose.yaml", "config"],
        cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "docker/.env" in ran.stderr


def test_example_env_names_every_variable_that_is_used_and_no_other() -> None:
    example = (ROOT / "docker/example.env").read_text()
    named = set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    files = "".join(path.read_text() for path in (ROOT / "docker").glob("compose*.yaml"))
    assert named >= PASSWORDS
    assert named == set(re.findall(r"\$\{(\w+)", files))


def test_given_the_documented_command_every_password_is_one_of_its_own() -> None:
    documented = (ROOT / "docs/deploy.md").read_text()
    (command,) = re.findall(r"\$ \(umask 077; (awk [^>]*?) > docker/.env\)", documented)
    made = subprocess.run(["sh", "-c", command], cwd=ROOT, check=True, capture_output=True)
    values = dict(re.findall(r"^(\w+_PASSWORD)=(.*)$", made.stdout.decode(), re.MULTILINE))
    assert set(values) == PASSWORDS
    assert values.pop("REDIS_PRODUCER_PASSWORD") == ""
    user, colon, values["FLOWER_USER_PASSWORD"] = values["FLOWER_USER_PASSWORD"].partition(":")
    assert (user, colon) == ("operator", ":")
    assert all(re.fullmatch(r"[0-9a-f]{48}", word) for word in values.values())
    assert len(set(values.values())) == len(values)


def test_settings_in_files_beside_it_come_to_those_that_they_are_for(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    for name in ("settings", "worker", "gateway"):
        (tmp_path / f"docker/{name}.env").write_text(f"FROM_{name.upper()}=1\n")
    found = {
        name: {variable for variable in one.get("environment", {}) if variable.startswith("FROM_")}
        for name, one in composed(root=tmp_path)["services"].items()
    }
    assert found.pop("worker") == {"FROM_SETTINGS", "FROM_WORKER"}
    assert found.pop("gateway") == found.pop("listener") == {"FROM_SETTINGS", "FROM_GATEWAY"}
    assert not any(found.values())


def test_given_models_in_the_image_a_worker_is_told_where_and_not_of_the_hub() -> None:
    """What Compose sets stands before what the image does, which lets nobody ask a hub."""
    worker = composed("baked")["services"]["worker"]
    inside = environment(worker["build"]["target"])
    for name in ("CAPTIONQ_CAPTION_MODEL", "CAPTIONQ_MATCH_MODEL"):
        assert worker["environment"][name] == inside[name]
    assert worker["image"] != composed()["services"]["worker"]["image"]
