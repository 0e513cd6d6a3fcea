"""docker/kubernetes/: by the schemas of Kubernetes and KEDA, and by the restricted profile."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.manifests import FILES, OVERLAYS, check, documents, named, pods, rendered, written
from tests.unit.deploy.conftest import BUILT, environment


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


def test_volumes_are_where_the_images_write() -> None:
    (container,) = dict(pods(written()))["captionq-worker"]["containers"]
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounted == {"/tmp", environment("worker")["CAPTIONQ_HOME"]}
