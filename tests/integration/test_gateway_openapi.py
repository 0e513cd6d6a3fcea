"""What the gateway says of itself holds: schemathesis asks it all that OpenAPI lets one ask.

A longer run, with sequences of requests, against a gateway of your own (a job that is cancelled is
still there, so DELETE is not what that check takes it for):

    schemathesis run http://127.0.0.1:8000/openapi.json --max-examples 1000 \\
        --exclude-checks positive_data_acceptance,use_after_free
"""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from producer.embedded import RedisServer
from producer.gateway.app import create_app
from producer.gateway.keys import SCOPES
from producer.gateway.settings import GatewaySettings
from tests.gateway_process import GatewayProcess, new_key, worker

EXAMPLES = 15
"""Of each operation; the whole in half a minute."""

NOT_CHECKED: list[CheckFunction] = [
    # A schema cannot say all that a job has to be: which options go together, what is a URI.
    positive_data_acceptance
]


def described() -> dict[str, Any]:
    """The OpenAPI of a gateway with keys."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        new_key(path, "tester")
        app = create_app(GatewaySettings(api_keys=path, upload_to=f"{path.parent.as_uri()}/"))
        return app.openapi()


REFUSED = [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429]
CONFIG = SchemathesisConfig.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
)
schema = schemathesis.openapi.from_dict(described(), config=CONFIG)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("openapi") / "keys.json"
    return new_key(path, "tester", *SCOPES, rate=1e6)[0], path


@pytest.fixture(scope="module")
def gateway(
    _redis_server: RedisServer, key: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    uploads = tmp_path_factory.mktemp("uploads")
    with (
        worker(_redis_server.url),
        GatewayProcess(
            _redis_server.url,
            key[1].with_name("log"),
            "--keys",
            str(key[1]),
            CAPTIONQ_UPLOAD_TO=f"{uploads.as_uri()}/",
        ) as process,
    ):
        yield process


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_openapi_tells_of(
    case: schemathesis.Case, gateway: GatewayProcess, key: tuple[str, Path]
) -> None:
    case.call_and_validate(
        base_url=gateway.url,
        headers={"Authorization": f"Bearer {key[0]}"},
        excluded_checks=NOT_CHECKED,
        timeout=10,
    )


def test_the_gateway_has_not_failed_on_any(gateway: GatewayProcess) -> None:
    """Runs behind those above: what failed inside would be in its log."""
    assert "Traceback" not in gateway.log.read_text()


def test_every_operation_tells_of_its_keys_its_answers_and_examples(
    gateway: GatewayProcess,
) -> None:
    said = httpx.get(f"{gateway.url}/openapi.json").json()

    assert said["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in json.dumps(said)
    for path, methods in said["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            assert ("security" in operation) == (path not in OPEN), (method, path)
            if "requestBody" in operation and method == "post" and "jobs" in path:
                assert operation["requestBody"]["content"]["application/json"]["examples"]


OPEN = {"/healthz", "/readyz", "/problems/{code}"}
"""What needs no key."""
