"""docker/compose*.yaml, as Docker Compose itself reads them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from producer.gateway.server import GRACE_S
from tests.dockerfiles import ROOT
from tests.unit.deploy.conftest import BUILT, OVERLAYS, SETTINGS, composed, environment, said, tool
from worker.settings import WorkerSettings
from worker.shutdown import END_TIMEOUT_S

FILES = [(), *((name,) for name in OVERLAYS), OVERLAYS]
of_each = pytest.mark.parametrize("overlays", FILES, ids=lambda names: "+".join(names) or "alone")


def services(*overlays: str) -> dict[str, Any]:
    return dict(composed(*overlays)["services"])


def seconds(duration: str) -> float:
    """Of a duration as Compose prints it: 2m50s."""
    parts = re.findall(r"(\d+)([hms])", duration)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def test_there_is_everything_that_is_run_and_watched() -> None:
    assert set(services()) == {
        *("redis", "worker", "keys", "gateway", "listener", "flower", "prometheus", "grafana")
    }
    assert set(services("s3")) - set(services()) == {"s3", "s3-setup"}


@of_each
def test_compose_itself_reads_the_files(overlays: tuple[str, ...]) -> None:
    assert composed(*overlays)["name"] == "captionq"


def test_given_an_unknown_key_compose_would_refuse_the_file(tmp_path: Path) -> None:
    bad = tmp_path / "compose.yaml"
    bad.write_text("services: {a: {image: 'a:1', helthcheck: {}}}\n")
    ran = subprocess.run([tool("docker-compose"), "-f", bad, "config"], capture_output=True)
    assert ran.returncode != 0


@of_each
def test_every_image_has_a_fixed_tag_and_is_built_by_one_service_or_by_none(
    overlays: tuple[str, ...],
) -> None:
    """Two that build one name at once are in each other's way: "image already exists"."""
    built = []
    for name, service in services(*overlays).items():
        image, _, tag = service["image"].rpartition(":")
        assert image, name
        assert tag not in ("", "latest"), name
        if "build" in service:
            built.append(image)
            assert Path(service["build"]["context"]) == ROOT
            assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert sorted(built) == sorted(BUILT)


@of_each
def test_every_service_is_unprivileged_read_only_and_bounded(overlays: tuple[str, ...]) -> None:
    for name, service in services(*overlays).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert "memory" in service["deploy"]["resources"]["limits"], name
        assert not service.get("privileged"), name
        assert service.get("network_mode") in (None, "none"), name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ())), name


@of_each
def test_no_service_asks_for_more_processors_than_any_machine_has(
    overlays: tuple[str, ...],
) -> None:
    """Docker refuses to start one that asks for more than there are."""
    for name, service in services(*overlays).items():
        assert float(service["deploy"]["resources"]["limits"].get("cpus", 0)) <= 1, name


@of_each
def test_only_loopback_ports_are_published_and_never_those_of_redis(
    overlays: tuple[str, ...],
) -> None:
    for name, service in services(*overlays).items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name
    assert "ports" not in services(*overlays)["redis"]
    assert list(services(*overlays)["redis"]["networks"]) == ["inside"]
    assert composed(*overlays)["networks"]["inside"]["internal"] is True


@of_each
def test_what_runs_on_is_started_again_and_found_healthy(overlays: tuple[str, ...]) -> None:
    once = {name for name, one in services(*overlays).items() if one["restart"] == "no"}
    assert once <= {"keys", "s3-setup"}
    waited_for = {
        other
        for service in services(*overlays).values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert once == waited_for  # or `up --wait` takes their end for a failure
    for name, service in services(*overlays).items():
        if name in once:
            continue
        assert service["restart"] == "unless-stopped", name
        assert service.get("healthcheck") or service["image"].partition(":")[0] in BUILT, name


@of_each
def test_every_setting_named_is_one(overlays: tuple[str, ...]) -> None:
    for name, service in services(*overlays).items():
        ours = {n for n in service.get("environment", {}) if n.startswith("CAPTIONQ_")}
        assert ours <= SETTINGS, name


def test_a_worker_gets_longer_to_stop_than_it_lets_its_last_jobs_run() -> None:
    needed_s = WorkerSettings.model_fields["shutdown_timeout_s"].default + END_TIMEOUT_S
    assert seconds(services()["worker"]["stop_grace_period"]) > needed_s


def test_a_gateway_gets_longer_to_stop_than_its_last_requests_may_take() -> None:
    assert seconds(services()["gateway"]["stop_grace_period"]) > GRACE_S


def test_published_ports_are_those_that_the_images_expose() -> None:
    for name, image in {"gateway": "producer", "flower": "flower"}.items():
        (port,) = services()[name]["ports"]
        assert said(image, "EXPOSE") == [str(port["target"])]


def test_every_part_has_a_user_of_redis_of_its_own() -> None:
    for overlays in ((), ("tls",)):
        users = {
            name: service["environment"]["CAPTIONQ_BROKER_URL"].split("://")[1].partition(":")[0]
            for name, service in services(*overlays).items()
            if "CAPTIONQ_BROKER_URL" in service.get("environment", {})
        }
        assert users == {
            "worker": "worker", "gateway": "gateway", "listener": "gateway", "flower": "flower"
        }  # fmt: skip
    known = (ROOT / "docker/redis/users.acl").read_text()
    assert all(f"\nuser {user} on PASSWORD " in known for user in users.values())


@of_each
def test_what_is_mounted_from_here_is_here(overlays: tuple[str, ...]) -> None:
    for name, service in services(*overlays).items():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), name


@of_each
def test_volumes_lie_where_the_images_user_may_write(overlays: tuple[str, ...]) -> None:
    """Docker gives a fresh volume the owner that its mount point has in the image."""
    for name, service in services(*overlays).items():
        image = service["image"].partition(":")[0]
        if image not in BUILT:
            continue
        made = [value for value in said(image, "RUN") if "install -d -o captionq" in value]
        home = environment(image)["HOME"]
        for volume in service.get("volumes", ()):
            place = volume["target"]
            assert place == home or any(place in value.split() for value in made), (name, place)


def test_prometheus_asks_services_that_are_there_on_the_ports_that_they_have() -> None:
    scraped = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    asked = {}
    for job in scraped["scrape_configs"]:
        for found in job.get("dns_sd_configs", ()):
            asked |= dict.fromkeys(found["names"], str(found["port"]))
        for listed in job.get("static_configs", ()):
            asked |= dict(target.split(":") for target in listed["targets"])
    images = {"worker": "worker", "gateway": "producer", "flower": "flower"}
    assert set(asked) == set(images)
    for service, port in asked.items():
        assert said(images[service], "EXPOSE") == [port]
        assert set(services()[service]["networks"]) & set(services()["prometheus"]["networks"])
    (mounted,) = (
        volume
        for volume in services("gpu")["prometheus"]["volumes"]
        if volume["target"] == "/srv/devices"
    )
    (several,) = yaml.safe_load((Path(mounted["source"]) / "devices.yml").read_text())
    first = int(asked["worker"])
    assert several["targets"] == [f"worker:{first + device}" for device in range(1, 8)]
    rules = [ROOT / "docker/prometheus" / name for name in scraped["rule_files"]]
    assert rules
    assert all(rule.is_file() for rule in rules)
