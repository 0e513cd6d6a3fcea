"""docker/kubernetes/: against the schemas of Kubernetes and KEDA, and against what we run."""

import ipaddress
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from producer.gateway.server import GRACE_S
from producer.queues import DEFAULT_QUEUE, queues_served
from tests.dockerfiles import ROOT
from tests.unit.deploy.conftest import BUILT, SETTINGS, environment, said
from worker.settings import WorkerSettings
from worker.shutdown import END_TIMEOUT_S

FOLDER = ROOT / "docker/kubernetes"
KUBERNETES = "1.33"
FILES = sorted(
    path
    for path in FOLDER.glob("*/*.yaml")
    if path.name != "kustomization.yaml" and path.parent.name != "gpu"  # patches
)
OVERLAYS = ("cpu", "gpu")


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


@cache
def written() -> tuple[dict[str, Any], ...]:
    return tuple(document for path in FILES for document in documents(path.read_text()))


@cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here: overlays are not rendered, the files alone are checked")
    ran = subprocess.run(
        [kubectl, "kustomize", str(FOLDER / overlay)], check=True, stdout=subprocess.PIPE, text=True
    )
    return tuple(documents(ran.stdout))


def named(kind: str, among: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in among if one["kind"] == kind}


def pods(among: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("Deployment", "StatefulSet"):
        for name, one in named(kind, among).items():
            yield name, one["spec"]["template"]["spec"]


def check(document: dict[str, Any]) -> None:
    """Raises for what the schema does not know, or knows otherwise."""
    if document["apiVersion"].startswith("keda.sh/"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from cloudcoil.models.keda import v1alpha1
        read = getattr(v1alpha1, document["kind"]).model_validate(document)
        assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == document
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_manifest_follows_its_schema(path: Any) -> None:
    found = documents(path.read_text())
    assert found
    for document in found:
        check(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_follows_its_schema(overlay: str) -> None:
    for document in rendered(overlay):
        check(document)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "captionq"


@pytest.mark.parametrize("kind", ["Deployment", "ScaledObject"])
def test_given_a_field_that_is_misspelt_the_check_would_find_it(kind: str) -> None:
    document = yaml.safe_load(yaml.safe_dump(named(kind, written())["captionq-worker"]))
    document["spec"]["minReplicaCounts"] = 1
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_built_here_or_have_a_fixed_tag(overlay: str) -> None:
    for name, pod in pods(rendered(overlay)):
        for container in pod["containers"]:
            image, _, tag = container["image"].rpartition(":")
            assert tag not in ("", "latest"), name
            assert image in BUILT | {"redis"}, name


def test_every_pod_keeps_to_the_restricted_profile() -> None:
    assert len(list(pods(written()))) == 5
    for name, pod in pods(written()):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name


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
    secret = set(named("Secret", written())["captionq"]["stringData"])
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
            for variable in container.get("env", ()):
                if wanted := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert wanted["key"] in secrets[wanted["name"]]
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
    (authentication,) = named("TriggerAuthentication", written()).values()
    for wanted in authentication["spec"]["secretTargetRef"]:
        assert wanted["key"] in secrets[wanted["name"]]


def test_lists_that_are_scaled_by_are_the_queues_that_workers_take_from() -> None:
    triggers = named("ScaledObject", written())["captionq-worker"]["spec"]["triggers"]
    lists = [one["metadata"]["listName"] for one in triggers if one["type"] == "redis"]
    every_model = {
        queue
        for queue in queues_served([("caption", "MODEL"), ("match", "MODEL")])
        if "MODEL" not in queue
    }
    assert DEFAULT_QUEUE in lists
    assert sorted(lists) == sorted(every_model)


def test_ages_that_are_scaled_by_are_series_that_workers_have() -> None:
    triggers = named("ScaledObject", written())["captionq-worker"]["spec"]["triggers"]
    queries = [one["metadata"]["query"] for one in triggers if one["type"] == "prometheus"]
    source = (ROOT / "worker/metrics/broker.py").read_text()
    assert len(queries) == 2
    for query in queries:
        assert "captionq_queue_oldest_seconds{lane=" in query
        assert '"captionq_queue_oldest_seconds"' in source


def test_what_is_scaled_has_no_number_of_its_own_and_is_one_device_each() -> None:
    scaled = named("ScaledObject", written())["captionq-worker"]["spec"]
    worker = named("Deployment", written())[scaled["scaleTargetRef"]["name"]]
    assert "replicas" not in worker["spec"]
    gpu = dict(pods(rendered("gpu")))["captionq-worker"]
    (container,) = gpu["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["args"] == ["run", "--devices", "0"]


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


def test_volumes_are_where_the_images_write() -> None:
    (container,) = dict(pods(written()))["captionq-worker"]["containers"]
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounted == {"/tmp", environment("worker")["CAPTIONQ_HOME"]}
