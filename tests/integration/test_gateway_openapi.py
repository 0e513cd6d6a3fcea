"""What the gateway says of itself holds: schemathesis asks it all that OpenAPI lets one ask.

A longer run, with sequences of requests, against a gateway of your own (a job that is cancelled is
still there, so DELETE is not what that check takes it for):

    schemathesis run http://127.0.0.1:8000/openapi.json --max-examples 1000 \\
        --exclude-checks positive_data_acceptance,use_after_free
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from producer.embedded import RedisServer
from producer.gateway.keys import SCOPES
from tests.gateway_process import GatewayProcess, new_key, worker

EXAMPLES = 15
"""Of each operation, besides one for each edge of each schema; the whole in half a minute."""

NOT_CHECKED = "positive_data_acceptance"
"""A schema cannot say all that a job has to be: which options go together, what is a URI."""

REFUSED = [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429]
CONFIG = f"[checks.negative_data_rejection]\nexpected-statuses = {REFUSED}\n"


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


def test_every_answer_is_one_that_openapi_tells_of(
    gateway: GatewayProcess, key: tuple[str, Path], tmp_path: Path
) -> None:
    """A command of its own: in a process of the tests each of these would make all cases."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"),
        *("run", f"{gateway.url}/openapi.json", "--header", f"Authorization: Bearer {key[0]}"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
        *("--exclude-checks", NOT_CHECKED, "--request-timeout", "10"),
        "--generation-deterministic",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-8_000:]}\n{done.stderr}"
    paths = httpx.get(f"{gateway.url}/openapi.json").json()["paths"]
    operations = sum(len(methods) for methods in paths.values())
    assert f"Tested: {operations}\n" in done.stdout, done.stdout


def test_the_gateway_has_not_failed_on_any(gateway: GatewayProcess) -> None:
    """Runs behind the one above: what failed inside would be in its log."""
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
