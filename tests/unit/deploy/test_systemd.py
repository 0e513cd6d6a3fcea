"""docker/systemd/: as systemd itself reads the units, and as we run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from producer.gateway.server import GRACE_S
from tests.dockerfiles import ROOT
from tests.systemd_units import INSTALLED, RUN, UNITS, Unit
from tests.unit.deploy.conftest import SETTINGS
from worker.settings import EX_CONFIG, WorkerSettings
from worker.shutdown import END_TIMEOUT_S

NAMES = [*RUN, "captionq-listener@uploads.service"]
of_each = pytest.mark.parametrize("name", NAMES)
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is not here: units are read by us alone"
)
MOST_EXPOSED = 25
"""Of 100, as systemd-analyze security has it; a unit that says nothing has 96."""


@pytest.fixture
def laid(tmp_path: Path) -> Path:
    """The units in a folder, as if captionq were installed and had its user."""
    for name in (*NAMES, "captionq.target"):
        text = Unit(name).file.read_text()
        text = re.sub(rf"{INSTALLED}\w+", "/bin/true", text)
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
    unit = Unit(name)
    assert unit.said("User") == ["captionq"]
    assert unit.command[0].endswith(("/captionq", "/celery"))
    assert "EnvironmentFile=/etc/captionq/env" in unit.file.read_text()
    assert "WantedBy=captionq.target" in unit.file.read_text()


@of_each
def test_every_setting_that_a_unit_sets_is_one(name: str) -> None:
    text = "\n".join(Unit(name).said("Environment"))
    ours = set(re.findall(r"\b(CAPTIONQ_\w+)=", text))
    assert ours
    assert ours <= SETTINGS


def test_a_worker_gets_longer_to_stop_than_it_lets_its_last_jobs_run() -> None:
    needed_s = WorkerSettings.model_fields["shutdown_timeout_s"].default + END_TIMEOUT_S
    assert Unit("captionq-worker@0.service").stop_s > needed_s


def test_a_gateway_gets_longer_to_stop_than_its_last_requests_may_take() -> None:
    assert Unit("captionq-gateway.service").stop_s > GRACE_S


def test_a_worker_that_cannot_start_as_it_is_set_up_is_not_started_again() -> None:
    assert Unit("captionq-worker@0.service").said("RestartPreventExitStatus") == [str(EX_CONFIG)]


def test_two_workers_have_names_and_ports_of_their_own() -> None:
    units = [Unit(f"captionq-worker@{number}.service") for number in (0, 1)]
    assert units[0].command != units[1].command
    ports = [line for unit in units for line in unit.said("Environment") if "METRICS_PORT" in line]
    assert ["9460" in ports[0], "9461" in ports[1]] == [True, True]


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
