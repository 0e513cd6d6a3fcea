"""Redis as docker/compose.yaml starts it, run without Docker: its shell, its users, its check."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from producer.redis_server import server_binary
from tests.dockerfiles import ROOT
from tests.redis_users import needs_users
from tests.unit.deploy.conftest import composed


@dataclass(frozen=True)
class Started:
    port: int
    environment: dict[str, str]

    def client(self, **who: Any) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True, **who)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    needs_users()
    service = composed()["services"]["redis"]
    shell, flags, script = service["command"]
    script = script.replace("$$", "$").replace("/tmp/users.acl", str(tmp_path / "users.acl"))
    script = script.replace("/etc/captionq", str(ROOT / "docker/redis"))
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "redis-server").symlink_to(server_binary())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**service["environment"], "MORE": f"--bind 127.0.0.1 --port {port}"}
    environment["PATH"] = f"{binaries}:{os.environ['PATH']}"
    command = [shell, flags, script]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        yield Started(port, environment)
    finally:
        process.terminate()
        process.wait(20)


def test_given_a_password_for_each_part_each_is_let_in_and_nobody_else(started: Started) -> None:
    deadline_s = time.monotonic() + 20
    operator = started.client(
        username="operator", password=started.environment["REDISCLI_AUTH"]
    )  # as the health check
    while True:
        try:
            assert operator.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
    for user in ("worker", "gateway", "flower"):
        word = started.environment[f"REDIS_{user.upper()}_PASSWORD"]
        with started.client(username=user, password=word) as client:
            assert client.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
    for stranger in ({}, {"username": "worker", "password": "wrong"}):
        with pytest.raises(redis.AuthenticationError), started.client(**stranger) as client:
            client.get("a")
    operator.close()
