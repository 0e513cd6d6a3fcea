"""docker/systemd/: as systemd itself reads the units, and as we run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from producer.gateway.server import GRACE_S
from tests.dockerfiles import ROOT
from tests.systemctl import Unit
from tests.unit.deploy.conftest import SETTINGS
from tests.whole_service import RUN
from worker.settings import EX_CONFIG, WorkerSettings
from worker.shutdown import END_TIMEOUT_S

UNITS = ROOT / "docker/systemd"
INSTALLED = "/opt/captionq/bin/"
NAMES = [*RUN, "captionq-listener@uploads.service"]
of_each = pytest.mark.parametrize("name", NAMES)
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is not here: units are read by us alone"
)
MOST_EXPOSED = 25
"""Of 100, as systemd-analyze security has it; a unit that says nothing has 96."""


def read(name: str) -> Unit:
    """A unit of ours."""
    return Unit(name, [UNITS])


@pytest.fixture
def laid(tmp_path: Path) -> Path:
    """The units in a folder, as if captionq were installed and had its user."""
    for name in (*NAMES, "captionq.target", "captionq-gpu.service"):
        text = read(name).file.read_text()
        text = re.sub(r"^(ExecStart=-?)\S+", r"\1/bin/true", text, flags=re.MULTILINE)
        text = re.sub(r"^(User|Group)=captionq$", r"\1=root", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(text)
    return tmp_path


def analyzed(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [str(ANALYZE), *map(str, words)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@needs_systemd
def test_systemd_finds_no_fault_in_any_unit(laid: Path) -> None:
    ran = analyzed("verify", "--man=no", *sorted(laid.iterdir()))
    ours = [line for line in ran.stdout.splitlines() if "captionq" in line]
    assert ours == []


@needs_systemd
def test_given_a_misspelt_key_systemd_would_find_it(laid: Path) -> None:
    unit = laid / "captionq-gateway.service"
    unit.write_text(unit.read_text().replace("PrivateTmp=", "PrivateTemp="))
    assert "PrivateTemp" in analyzed("verify", "--man=no", unit).stdout


@needs_systemd
@of_each
def test_a_unit_is_confined(laid: Path, name: str) -> None:
    threshold = f"--threshold={MOST_EXPOSED}"
    ran = analyzed("security", "--no-pager", "--offline=true", threshold, laid / name)
    assert ran.returncode == 0, ran.stdout[-300:]


@of_each
def test_a_unit_runs_as_its_own_user_by_a_command_of_ours(name: str) -> None:
    unit = read(name)
    assert unit.said["User"] == ["captionq"]
    assert unit.words("ExecStart")[0] in (f"{INSTALLED}captionq", f"{INSTALLED}celery")
    assert "EnvironmentFile=/etc/captionq/env" in unit.file.read_text()
    assert "WantedBy=captionq.target" in unit.file.read_text()


@of_each
def test_every_setting_that_a_unit_sets_is_one(name: str) -> None:
    unit = read(name)
    text = " ".join(unit.words("Environment") + unit.words("UnsetEnvironment"))
    ours = set(re.findall(r"\bCAPTIONQ_\w+", text))
    assert ours
    assert ours <= SETTINGS


def test_a_worker_gets_longer_to_stop_than_it_lets_its_last_jobs_run() -> None:
    needed_s = WorkerSettings.model_fields["shutdown_timeout_s"].default + END_TIMEOUT_S
    assert read("captionq-worker@0.service").stop_s > needed_s


def test_a_gateway_gets_longer_to_stop_than_its_last_requests_may_take() -> None:
    assert read("captionq-gateway.service").stop_s > GRACE_S


def test_a_worker_that_cannot_start_as_it_is_set_up_is_not_started_again() -> None:
    assert read("captionq-worker@0.service").said["RestartPreventExitStatus"] == [str(EX_CONFIG)]


def test_two_workers_have_names_and_ports_of_their_own() -> None:
    units = [read(f"captionq-worker@{number}.service") for number in (0, 1)]
    assert units[0].words("ExecStart") != units[1].words("ExecStart")
    ports = [word for unit in units for word in unit.words("Environment") if "METRICS_PORT" in word]
    assert ports == ["CAPTIONQ_METRICS_PORT=9460", "CAPTIONQ_METRICS_PORT=9461"]


def test_a_worker_waits_for_the_devices_that_it_may_not_make() -> None:
    worker = read("captionq-worker@0.service")
    assert read("captionq-gpu.service").file.name in worker.words("After")
    assert "captionq-gpu.service" in worker.words("Wants")


def test_flower_has_no_key_that_jobs_or_callbacks_are_signed_with() -> None:
    unset = read("captionq-flower.service").words("UnsetEnvironment")
    assert unset == ["CAPTIONQ_SIGNING_KEYS", "CAPTIONQ_CALLBACK_SECRETS"]


def test_a_redis_whose_disk_is_full_is_started_again_for_as_long_as_that_takes() -> None:
    text = (UNITS / "redis.conf").read_text()
    assert "StartLimitIntervalSec=0" in text.partition("[Service]")[0].splitlines()
    assert "--appendfsync always" in text


def test_prometheus_asks_each_unit_where_it_says_that_it_is_healthy() -> None:
    scraped = yaml.safe_load((UNITS / "prometheus.yml").read_text())
    asked = {
        target
        for job in scraped["scrape_configs"]
        for listed in job["static_configs"]
        for target in listed["targets"]
    }
    assert asked == {url.split("/")[2] for url in RUN.values()}
    for rules in scraped["rule_files"]:
        assert (ROOT / "docker/prometheus" / rules).is_file()
