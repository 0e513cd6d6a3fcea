"""docs/http.md tells of every route, code and setting."""

import re
from pathlib import Path

import pytest

from producer.gateway.app import create_app
from producer.gateway.codes import MEANING, Code
from producer.gateway.settings import GatewaySettings
from producer.settings import ProducerSettings

DOCS = Path(__file__).parents[2] / "docs"
HTTP = (DOCS / "http.md").read_text()
SETTINGS = HTTP + "".join((DOCS / f"{name}.md").read_text() for name in ("page", "uploads"))


@pytest.mark.parametrize("code", Code)
def test_a_code_is_told_with_its_status(code: Code) -> None:
    assert f"| {MEANING[code][0]} | `{code}` |" in HTTP


@pytest.mark.parametrize(
    "name", sorted(set(GatewaySettings.model_fields) - set(ProducerSettings.model_fields))
)
def test_a_setting_is_told_by_its_variable(name: str) -> None:
    assert f"_{name.upper()}`" in SETTINGS


def test_every_route_of_openapi_is_in_the_table() -> None:
    routes = create_app(GatewaySettings()).openapi()["paths"]

    for path, methods in routes.items():
        told = re.sub(r"\{[a-z_]*id\}", "{id}", path)
        for method in methods:
            assert re.search(rf"`{method.upper()} {re.escape(told)}[?`]", HTTP), (method, told)
