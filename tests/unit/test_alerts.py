"""docker/prometheus: every alert fires under its fault and is silent in health, says promtool."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.fates import Kind
from tests.chaos.faults import ACTS
from tests.monitoring import table, titles
from tests.record_series import FAULTS, HEALTHY, Scene, file_of
from tests.series import Series

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker/prometheus/alerts.yml"
CONFIGS = (
    "docker/prometheus/prometheus.yml",
    "docker/prometheus/kubernetes.yml",
    "docker/systemd/prometheus.yml",
)
DOC = (ROOT / "docs/metrics.md").read_text()
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="needs promtool (Debian's package prometheus): rules are not run"
)

GROWS = "0x4 1+1x12"
WORKER = 'job="captionq-worker",instance="w"'
GATEWAY = 'job="captionq-gateway",instance="g"'
POSTED = f'{GATEWAY},route="/v1/jobs",method="POST"'
ASKED_IF_READY = (
    f'captionq_gateway_requests_total{{{GATEWAY},route="/readyz",method="GET",status="503"}}'
)

FAULTY: dict[str, Series] = {
    "CaptionqNoWorkers": {f"captionq_workers{{{WORKER}}}": "1x2 0x30"},
    "CaptionqWorkerDown": {f"up{{{WORKER}}}": "1x2 0x30"},
    "CaptionqWorkerRestarts": {
        f"process_start_time_seconds{{{WORKER}}}": "100x3 160x3 220x3 280x3 340x3"
    },
    "CaptionqWorkersDied": {f"captionq_leases_ended_total{{{WORKER}}}": GROWS},
    "CaptionqLeasesLost": {f"captionq_leases_lost_total{{{WORKER}}}": GROWS},
    "CaptionqWorkerUnhealthy": {f"captionq_worker_healthy{{{WORKER}}}": "1x2 0x14"},
    "CaptionqDeviceHung": {f"captionq_batch_running_seconds{{{WORKER}}}": "0x8 15 31 46 58x5"},
    "CaptionqOutOfMemory": {
        f'captionq_batches_total{{{WORKER},task="caption",outcome="out_of_memory"}}': GROWS
    },
    "CaptionqRedisAway": {f'captionq_redis_up{{{WORKER},role="broker"}}': "1x2 0x14"},
    "CaptionqBrokerLost": {f"captionq_broker_connections_lost_total{{{WORKER}}}": GROWS},
    "CaptionqRedisFull": {
        f"captionq_redis_memory_used_bytes{{{WORKER}}}": "10x3 95x12",
        f"captionq_redis_memory_max_bytes{{{WORKER}}}": "100x15",
    },
    "CaptionqStoreAway": {f'captionq_returned_total{{{WORKER},reason="store"}}': GROWS},
    "CaptionqClockOff": {f"captionq_clock_offset_seconds{{{WORKER}}}": "0x2 -7200x14"},
    "CaptionqQueueLate": {
        f'captionq_queue_oldest_seconds{{{WORKER},queue="captionq.caption",lane="interactive"}}': (
            "0+60x15"
        )
    },
    "CaptionqBulkLate": {
        f'captionq_queue_oldest_seconds{{{WORKER},queue="captionq.caption.bulk",lane="bulk"}}': (
            "30000x60"
        )
    },
    "CaptionqJobsStuck": {
        f'captionq_open_oldest_seconds{{{GATEWAY},lane="interactive"}}': "4000x60"
    },
    "CaptionqJobsPoisoned": {f'captionq_dead_letters_total{{{WORKER},code="job_poisoned"}}': GROWS},
    "CaptionqDeadLetters": {f'captionq_dead_letters_total{{{WORKER},code="http_5xx"}}': GROWS},
    "CaptionqMessagesRefused": {
        f'captionq_dead_letters_total{{{WORKER},code="signature_invalid"}}': GROWS
    },
    "CaptionqStorageAway": {f'captionq_retries_total{{{WORKER},code="s3_unavailable"}}': GROWS},
    "CaptionqSourcesAway": {
        f'captionq_retries_total{{{WORKER},code="fetch_timeout"}}': "0+5x16",
        f'captionq_jobs_total{{{WORKER},task="caption",state="succeeded",code="none"}}': "0+1x16",
    },
    "CaptionqImagesFail": {
        f'captionq_images_total{{{WORKER},task="caption",outcome="http_4xx"}}': "0+1x40",
        f'captionq_images_total{{{WORKER},task="caption",outcome="succeeded"}}': "0+2x40",
    },
    "CaptionqDecodersKilled": {
        f'captionq_images_total{{{WORKER},task="caption",outcome="decode_timeout"}}': "0+1x16"
    },
    "CaptionqOverloaded": {f'captionq_retries_total{{{WORKER},code="worker_overloaded"}}': GROWS},
    "CaptionqNewerContract": {
        f'captionq_retries_total{{{WORKER},code="schema_unsupported"}}': GROWS
    },
    "CaptionqJobsLost": {f"captionq_reconciler_sent_again_total{{{WORKER}}}": GROWS},
    "CaptionqReconcilerFails": {
        f'captionq_reconciler_passes_total{{{WORKER},outcome="failed"}}': GROWS
    },
    "CaptionqCallbacksFail": {f'captionq_callbacks_total{{{WORKER},outcome="dead"}}': GROWS},
    "CaptionqReceiversAway": {
        f'captionq_callbacks_total{{{WORKER},outcome="due"}}': "0+1x60",
        f'captionq_callbacks_total{{{WORKER},outcome="delivered"}}': "0x60",
    },
    "CaptionqCallbacksLate": {f"captionq_callbacks_late_seconds{{{WORKER}}}": "0+60x16"},
    "CaptionqGatewayDown": {f"up{{{GATEWAY}}}": "1x2 0x14"},
    "CaptionqGatewayErrors": {
        f'captionq_gateway_requests_total{{{POSTED},status="503"}}': "0+1x16",
        f'captionq_gateway_requests_total{{{POSTED},status="202"}}': "0+9x16",
    },
}
"""For each alert series of its fault, a sample every 15 s."""


def recorded(name: str) -> Series:
    """What real workers gave (tests/record_series.py)."""
    found: Series = json.loads(file_of(name).read_text())
    return found


def minutes(scene: Scene) -> float:
    """How long a recording is, of samples every 15 s."""
    return scene.samples / 4


def group(series: Series, names: Iterable[str], minutes: float) -> dict[str, Any]:
    """A test of promtool's: that none of these alerts fires at any half minute."""
    return {
        "interval": "15s",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{half * 30}s", "alertname": name, "exp_alerts": []}
            for name in names
            for half in range(1, int(2 * minutes))
        ],
    }


def firing(folder: Path, *groups: dict[str, Any]) -> set[str]:
    """Which alerts fire all the same: promtool says so of each."""
    file = folder / "test.yml"
    whole = {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": groups}
    file.write_text(json.dumps(whole))  # which is YAML
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    found = set(re.findall(r"alertname:\s*(\w+)", said))
    assert (done.returncode == 0) == (not found), said[-2_000:]
    return found


def alerts_of(fault: str) -> set[str]:
    """The alerts that docs/metrics.md names for a fault."""
    [told] = [row[3] for row in table(DOC, "Fault") if row[0] == fault]
    return set(re.findall(r"`(\w+)`", told))


def test_the_series_of_a_fault_are_there_for_every_alert() -> None:
    assert set(FAULTY) == set(ALERTS)


@needs_promtool
def test_every_alert_fires_on_the_series_of_its_fault(tmp_path: Path) -> None:
    groups = (group(series, [name], minutes=16) for name, series in FAULTY.items())
    assert firing(tmp_path, *groups) == set(ALERTS)


@needs_promtool
@pytest.mark.parametrize("name", HEALTHY)
def test_on_the_series_of_healthy_workers_no_alert_fires(name: str, tmp_path: Path) -> None:
    assert firing(tmp_path, group(recorded(name), ALERTS, minutes(HEALTHY[name]))) == set()


@needs_promtool
@pytest.mark.parametrize("fault", FAULTS)
def test_the_series_of_real_workers_under_a_fault_fire_its_alerts_and_wake_nobody_for_another(
    fault: str, tmp_path: Path
) -> None:
    """Alerts that docs/metrics.md does not name for a fault may be tickets, no pages."""
    fired = firing(tmp_path, group(recorded(fault), ALERTS, minutes(FAULTS[fault])))
    told = alerts_of(fault)
    assert fired & told
    assert {name for name in fired if ALERTS[name]["labels"]["severity"] == "page"} <= told


@needs_promtool
def test_where_a_fleet_is_scaled_to_zero_no_alert_fires_until_a_job_waits(tmp_path: Path) -> None:
    open_jobs = f'captionq_open_jobs{{{GATEWAY},lane="interactive"}}'
    gateway = {f"up{{{GATEWAY}}}": "1x60", ASKED_IF_READY: "0+3x60"}
    assert firing(tmp_path, group({**gateway, open_jobs: "0x60"}, ALERTS, minutes=15)) == set()
    waiting = group({**gateway, open_jobs: "0x2 1x58"}, ALERTS, minutes=15)
    assert firing(tmp_path, waiting) == {"CaptionqNoWorkers"}


@needs_promtool
def test_given_a_redis_that_is_away_for_long_nobody_is_woken_for_want_of_workers(
    tmp_path: Path,
) -> None:
    series = {
        f"up{{{WORKER}}}": "1x60",
        f'captionq_redis_up{{{WORKER},role="results"}}': "1x4 0x60",
        f"captionq_workers{{{WORKER}}}": "1x4 " + "_ " * 60,
    }
    assert firing(tmp_path, group(series, ALERTS, minutes=15)) == {"CaptionqRedisAway"}


@needs_promtool
def test_given_few_jobs_one_that_fails_is_no_alert(tmp_path: Path) -> None:
    """As at night: one job in the last minutes, and its image is not there, or S3 stuttered."""
    series = {
        f'captionq_images_total{{{WORKER},task="caption",outcome="http_4xx"}}': "0x4 1x60",
        f'captionq_jobs_total{{{WORKER},state="failed",code="http_4xx"}}': "0x4 1x60",
        f'captionq_retries_total{{{WORKER},code="s3_unavailable"}}': "0x4 1x60",
        f'captionq_retries_total{{{WORKER},code="fetch_timeout"}}': "0x4 2x60",
        f'captionq_gateway_requests_total{{{POSTED},status="500"}}': "0x4 1x60",
        f"captionq_workers{{{WORKER}}}": "1x64",
    }
    assert firing(tmp_path, group(series, ALERTS, minutes=16)) == set()


@needs_promtool
def test_given_a_worker_that_starts_no_alert_fires_while_it_loads_or_waits_for_redis(
    tmp_path: Path,
) -> None:
    series = {
        f"up{{{WORKER}}}": "0x12 1x40",
        f"captionq_worker_healthy{{{WORKER}}}": "_x13 0x8 1x30",
        f'captionq_redis_up{{{WORKER},role="broker"}}': "_x13 0x8 1x30",
        f"captionq_workers{{{WORKER}}}": "_x21 2x30",
        'captionq_workers{job="captionq-worker",instance="other"}': "1x51",
    }
    fired = firing(tmp_path, group(series, ALERTS, minutes=12))
    assert fired == {"CaptionqRedisAway"}


@needs_promtool
@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_promtool_accepts_the_rules_and_what_prometheus_is_told_to_ask(
    path: str, tmp_path: Path
) -> None:
    told = yaml.safe_load((ROOT / path).read_text())
    assert {"captionq-worker", "captionq-gateway"} <= {
        one["job_name"] for one in told["scrape_configs"]
    }
    for one in told["scrape_configs"]:
        one.pop("kubernetes_sd_configs", None)  # Debian's promtool is built without
    config = yaml.safe_dump(told)
    for named in re.findall(r"credentials_file: (\S+)", config):  # these are made at start
        (tmp_path / "key").write_text("secret")
        config = config.replace(named, str(tmp_path / "key"))
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(RULES, tmp_path)
    done = subprocess.run(
        [str(PROMTOOL), "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_says_what_is_wrong_and_how_much_that_matters() -> None:
    for name, rule in ALERTS.items():
        assert rule["annotations"]["summary"], name
        assert rule["labels"]["severity"] in {"page", "ticket"}, name


def test_every_fault_of_the_survival_suite_has_a_metric_a_panel_and_an_alert() -> None:
    rows = {row[0]: row for row in table(DOC, "Fault")}
    wanted = {*ACTS, *(kind.value for kind in Kind if kind is not Kind.NORMAL)}
    assert wanted <= set(FAULTS) <= set(rows)
    panels = set(titles())
    for fault, (_, metrics, panel, alerts, *_) in rows.items():
        assert panel in panels, fault
        for alert in re.findall(r"`(\w+)`", alerts):
            assert alert in ALERTS, fault
            named = re.findall(r"`(\w+)`", metrics)
            assert any(one in ALERTS[alert]["expr"] for one in named), (fault, alert)


def test_every_alert_belongs_to_a_fault() -> None:
    told = {alert for row in table(DOC, "Fault") for alert in re.findall(r"`(\w+)`", row[3])}
    assert told == set(ALERTS)
