"""docker/kubernetes/: what manifests say of us is so: ports, settings, users, queues, times."""

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from producer.gateway.server import GRACE_S
from producer.queues import DEFAULT_QUEUE, queues_served
from tests.dockerfiles import ROOT
from tests.manifests import FOLDER, check, named, pods, rendered, rendered_at, written
from tests.unit.deploy.conftest import SETTINGS, said
from worker.inflight import Keys
from worker.settings import WorkerSettings
from worker.shutdown import END_TIMEOUT_S


def test_probes_ask_ports_that_images_expose() -> None:
    probed = 0
    for _, pod in pods(written()):
        for container in pod["containers"]:
            _, _, kind = container["image"].partition("captionq-")
            if "ports" not in container or not kind:
                continue
            (port,) = container["ports"]
            assert said(kind, "EXPOSE") == [str(port["containerPort"])]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    probed += 1
                    assert container[probe]["httpGet"]["port"] == port["name"]
    assert probed >= 7


def test_services_and_disruption_budgets_select_pods_that_are_there() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for one in named(kind, written()).values()
    ]
    chosen = [one["spec"]["selector"] for one in named("Service", written()).values()]
    chosen += [
        one["spec"]["selector"]["matchLabels"]
        for one in named("PodDisruptionBudget", written()).values()
    ]
    assert len(chosen) == 5
    for selector in chosen:
        assert any(selector.items() <= each.items() for each in labels), selector


def test_a_worker_gets_longer_to_drain_than_it_lets_its_last_jobs_run() -> None:
    pod = dict(pods(written()))["captionq-worker"]
    needed_s = WorkerSettings.model_fields["shutdown_timeout_s"].default + END_TIMEOUT_S
    assert pod["terminationGracePeriodSeconds"] > needed_s


def test_a_gateway_gets_longer_to_stop_than_its_wait_and_its_last_requests() -> None:
    pod = dict(pods(written()))["captionq-gateway"]
    (container,) = pod["containers"]
    wait_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > wait_s + GRACE_S


def test_every_setting_named_is_one() -> None:
    env = {
        variable["name"]
        for _, pod in pods(written())
        for container in pod["containers"]
        for variable in container.get("env", ())
    }
    secret = {key for one in named("Secret", written()).values() for key in one["stringData"]}
    base = yaml.safe_load((FOLDER / "base/kustomization.yaml").read_text())
    (generated,) = base["configMapGenerator"]
    config = {line.partition("=")[0] for line in generated["literals"]}
    ours = {name for name in env | secret | config if name.startswith("CAPTIONQ_")}
    assert len(ours) >= 5
    assert ours <= SETTINGS


def test_every_secret_that_pods_and_scaling_name_is_in_the_example() -> None:
    secrets = {name: set(one["stringData"]) for name, one in named("Secret", written()).items()}
    for _, pod in pods(written()):
        for container in pod["containers"]:
            for source in container.get("envFrom", ()):
                assert source.get("secretRef", {"name": "captionq"})["name"] in secrets
            if container["image"].startswith("captionq-"):
                own = [
                    one["secretRef"]["name"] for one in container["envFrom"] if "secretRef" in one
                ]
                assert "CAPTIONQ_BROKER_URL" in secrets[own[-1]]
            for variable in container.get("env", ()):
                if wanted := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert wanted["key"] in secrets[wanted["name"]]
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
    (authentication,) = named("TriggerAuthentication", written()).values()
    for wanted in authentication["spec"]["secretTargetRef"]:
        assert wanted["key"] in secrets[wanted["name"]]


def test_users_of_redis_are_those_of_its_file() -> None:
    known = (ROOT / "docker/redis/users.acl").read_text()
    secrets = named("Secret", written())
    urls = [one["stringData"].get("CAPTIONQ_BROKER_URL", "") for one in secrets.values()]
    users = [url.split("://")[1].partition(":")[0] for url in urls if url]
    users.append(secrets["captionq-keda"]["stringData"]["username"])
    assert sorted(users) == ["flower", "gateway", "scaler", "worker"]
    assert all(f"\nuser {user} on PASSWORD " in known for user in users)


def test_lists_that_are_scaled_by_are_the_queues_that_workers_take_from() -> None:
    triggers = named("ScaledObject", written())["captionq-worker"]["spec"]["triggers"]
    lists = [one["metadata"]["listName"] for one in triggers if one["type"] == "redis"]
    every_model = {
        queue
        for queue in queues_served([("caption", "MODEL"), ("match", "MODEL")])
        if "MODEL" not in queue
    }
    assert DEFAULT_QUEUE in lists
    elsewhere = {Keys().inflight, Keys().delayed, "captionq:callbacks"}
    assert sorted(lists) == sorted(every_model | elsewhere)


def test_who_comes_when_neither_redis_nor_prometheus_answers_is_told_as_keda_takes_it() -> None:
    """KEDA 2.17 refuses a fallback where no trigger says that it has an average."""
    scaled = named("ScaledObject", written())["captionq-worker"]["spec"]
    assert scaled["fallback"]["replicas"] > 0
    kinds = {one["type"]: one.get("metricType") for one in scaled["triggers"]}
    assert kinds == {"redis": "AverageValue", "prometheus": "Value"}


def test_ages_that_are_scaled_by_are_series_that_workers_have() -> None:
    triggers = named("ScaledObject", written())["captionq-worker"]["spec"]["triggers"]
    queries = [one["metadata"]["query"] for one in triggers if one["type"] == "prometheus"]
    source = (ROOT / "worker/metrics/broker.py").read_text()
    assert len(queries) == 2
    for query in queries:
        assert "captionq_queue_oldest_seconds{lane=" in query
        assert '"captionq_queue_oldest_seconds"' in source


def test_monitors_ask_the_ports_that_pods_have_and_give_them_the_jobs_that_alerts_go_by() -> None:
    monitors = named("PodMonitor", written())
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for name, one in named("Deployment", written()).items()
    }
    ports = {
        name: {
            port["name"]: port["containerPort"] for port in pod["containers"][0].get("ports", ())
        }
        for name, pod in pods(written())
    }
    policies = named("NetworkPolicy", written())
    (let_in,) = policies["from-prometheus"]["spec"]["ingress"]
    asked = set()
    for one in monitors.values():
        (name,) = chosen(one["spec"]["selector"], labels)
        assert labels[name][one["spec"]["jobLabel"]] == name
        (endpoint,) = one["spec"]["podMetricsEndpoints"]
        port = ports[name][endpoint["port"]]
        asked.add(name)
        if name == "captionq-gateway":  # whom anybody may reach, with a key
            credentials = endpoint["authorization"]["credentials"]
            secret = named("Secret", written())[credentials["name"]]["stringData"]
            assert credentials["key"] in secret
        else:
            assert name in chosen(policies["from-prometheus"]["spec"]["podSelector"], labels)
            assert {"protocol": "TCP", "port": port} in let_in["ports"]
    alerts = (ROOT / "docker/prometheus/alerts.yml").read_text()
    assert set(re.findall(r'job="([^"]+)"', alerts)) <= asked


def test_monitors_are_a_component_of_what_is_applied(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = folder / "gpu/kustomization.yaml"
    overlay.write_text(overlay.read_text() + "components:\n  - ../monitoring\n")
    found = named("PodMonitor", rendered_at(folder / "gpu"))
    assert {one["metadata"]["namespace"] for one in found.values()} == {"captionq"}
    assert set(found) == {"captionq-worker", "captionq-gateway", "captionq-flower"}


def test_alerts_as_the_documentation_sends_them_are_a_rule_of_prometheus_operator() -> None:
    documented = (ROOT / "docs/deploy.md").read_text()
    (command,) = re.findall(r"\$ (\{ printf .*?; \}) \| kubectl apply -f -", documented, re.DOTALL)
    sent = subprocess.run(["sh", "-c", command], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    rule = yaml.safe_load(sent.stdout)
    check(rule)
    assert rule["spec"] == yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())


def test_what_is_scaled_has_no_number_of_its_own_and_is_one_device_each() -> None:
    scaled = named("ScaledObject", written())["captionq-worker"]["spec"]
    worker = named("Deployment", written())[scaled["scaleTargetRef"]["name"]]
    assert "replicas" not in worker["spec"]
    gpu = dict(pods(rendered("gpu")))["captionq-worker"]
    (container,) = gpu["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["args"] == ["run", "--devices", "0"]


def chosen(selector: dict[str, Any], labels: dict[str, dict[str, str]]) -> set[str]:
    """Which pods of the namespace a policy's selector means."""
    wanted = selector.get("matchLabels", {}).items()
    found = {name for name, own in labels.items() if wanted <= own.items()}
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In"
        found &= {name for name, own in labels.items() if own.get(rule["key"]) in rule["values"]}
    return found


def test_whoever_needs_redis_may_reach_it_and_is_let_in() -> None:
    applied = rendered("cpu")
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for name, one in named(kind, applied).items()
    }
    redis = "captionq-redis"
    clients = set(labels) - {redis}
    assert len(clients) == 4
    out, into = (
        named("NetworkPolicy", applied)[name]["spec"] for name in ("to-redis", "to-captionq-redis")
    )
    assert chosen(out["podSelector"], labels) == clients
    assert chosen(out["egress"][0]["to"][0]["podSelector"], labels) == {redis}
    assert chosen(into["podSelector"], labels) == {redis}
    assert chosen(into["ingress"][0]["from"][0]["podSelector"], labels) >= clients


def test_workers_reach_the_internet_and_nothing_inside() -> None:
    policies = named("NetworkPolicy", written())
    assert policies["nothing-else"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    (rule,) = policies["to-internet"]["spec"]["egress"]
    v4, v6 = (to["ipBlock"] for to in rule["to"])
    closed = [ipaddress.ip_network(each) for each in v4["except"]]
    inside = ["10.96.0.1", "172.20.0.10", "192.168.1.1", "169.254.169.254", "100.64.0.1"]
    for address in inside:
        assert any(ipaddress.ip_address(address) in each for each in closed), address
    assert not any(ipaddress.ip_address("93.184.215.14") in each for each in closed)
    assert ipaddress.ip_address("fd00::1") not in ipaddress.ip_network(v6["cidr"])
    assert {port["port"] for port in rule["ports"]} == {80, 443}
