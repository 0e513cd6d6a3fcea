"""Redis as Compose starts it, run without Docker: its shell, its users, its check, its TLS."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.redis_server import server_binary
from tests.dockerfiles import ROOT
from tests.redis_family import knows_tls
from tests.redis_users import needs_users
from tests.unit.deploy.conftest import composed


@dataclass(frozen=True)
class Started:
    port: int
    environment: dict[str, str]
    secrets: Path | None

    def client(self, **who: Any) -> redis.Redis:
        trust = {"ssl": True, "ssl_ca_certs": str(self.secrets / "ca.crt")} if self.secrets else {}
        once = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, decode_responses=True, retry=once, **(trust | who))


def certificates(folder: Path) -> None:
    """As docs/deploy.md makes them."""
    documented = (ROOT / "docs/deploy.md").read_text()
    joined = documented.replace("\\\n", "")
    commands = re.findall(r"^\$ (openssl req .*)$", joined, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["sh", "-c", command], cwd=folder, check=True, capture_output=True)


@pytest.fixture(params=["plain", "tls"])
def started(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Started]:
    needs_users()
    secrets = tmp_path if request.param == "tls" else None
    if secrets and not (knows_tls() and shutil.which("openssl")):
        pytest.skip("no TLS: this redis-server is built without, or there is no openssl")
    if secrets:
        certificates(secrets)
    service = composed(*(("tls",) if secrets else ()))["services"]["redis"]
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "redis-server").symlink_to(server_binary())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    places = {
        "$$": "$",
        "/tmp/users.acl": str(tmp_path / "users.acl"),
        "/etc/captionq": str(ROOT / "docker/redis"),
        "/run/secrets/redis_ca": f"{tmp_path}/ca.crt",
        "/run/secrets/redis_": f"{tmp_path}/redis.",
        "-port 6379": f"-port {port}",
        "--user operator": f"--user operator -p {port}",
    }

    def here(text: str) -> str:
        for place, mine in places.items():
            text = text.replace(place, mine)
        return text

    shell, flags, script = service["command"]
    environment = {name: here(str(value)) for name, value in service["environment"].items()}
    environment["MORE"] += " --bind 127.0.0.1" + ("" if secrets else f" --port {port}")
    environment["PATH"] = f"{binaries}:{os.environ['PATH']}"
    command = [shell, flags, here(script)]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    (kind, check) = service["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    try:
        deadline_s = time.monotonic() + 20
        while not _healthy(here(check), environment, port):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        yield Started(port, environment, secrets)
    finally:
        process.terminate()
        process.wait(20)


def _healthy(check: str, environment: dict[str, str], port: int) -> bool:
    """By the service's own check where there is a redis-cli, or else when it listens."""
    if shutil.which("redis-cli"):
        asked = subprocess.run(["sh", "-c", check], env=environment, capture_output=True)
        return asked.returncode == 0
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_given_a_password_for_each_part_each_is_let_in_and_nobody_else(started: Started) -> None:
    names = {} if started.secrets is None else {"ssl_check_hostname": False}  # it is "redis"
    for user in ("worker", "gateway", "flower"):
        word = started.environment[f"REDIS_{user.upper()}_PASSWORD"]
        with started.client(username=user, password=word, **names) as client:
            assert client.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
    for stranger in ({}, {"username": "worker", "password": "wrong"}):
        with (
            pytest.raises(redis.AuthenticationError),
            started.client(**stranger, **names) as client,
        ):
            client.get("a")


@pytest.mark.parametrize("started", ["tls"], indirect=True)
def test_given_tls_its_certificate_is_of_the_name_that_urls_have(started: Started) -> None:
    assert started.secrets is not None
    url = composed("tls")["services"]["worker"]["environment"]["CAPTIONQ_BROKER_URL"]
    trust = ssl.create_default_context(cafile=started.secrets / "ca.crt")
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(("127.0.0.1", started.port)) as connection:
        name = url.partition("@")[2].partition(":")[0]
        trust.wrap_socket(connection, server_hostname=name).close()
