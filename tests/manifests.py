"""docker/kubernetes/, read: as written, as `kubectl apply -k` would send it; and its schemas."""

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.dockerfiles import ROOT

FOLDER = ROOT / "docker/kubernetes"
KUBERNETES = "1.33"
FILES = sorted(
    path
    for path in FOLDER.glob("*/*.yaml")
    if path.name != "kustomization.yaml" and path.parent.name != "gpu"  # patches
)
OVERLAYS = ("cpu", "gpu")
CUSTOM = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
"""Where the models of resources are that Kubernetes itself does not have."""


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


@cache
def written() -> tuple[dict[str, Any], ...]:
    return tuple(document for path in FILES for document in documents(path.read_text()))


@cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    """What `kubectl apply -k` would send of one of OVERLAYS."""
    return rendered_at(FOLDER / overlay)


def rendered_at(folder: Path) -> tuple[dict[str, Any], ...]:
    """What `kubectl apply -k` would send. Skips a test where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here: overlays are not rendered, the files alone are checked")
    ran = subprocess.run(
        [kubectl, "kustomize", str(folder)], check=True, stdout=subprocess.PIPE, text=True
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
    if package := CUSTOM.get(document["apiVersion"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models = import_module(package)
        read = getattr(models, document["kind"]).model_validate(document)
        assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == document
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
