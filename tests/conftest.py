"""Fixtures for all tests: a real Redis server, a whole house; which tests share a process."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from producer.embedded import RedisServer
from tests.house import House, open_house

# The same examples each time, so that a change is judged by what it changes; `make fuzz` draws new
# ones (HYPOTHESIS_PROFILE=default).
settings.register_profile("same", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Of this process and those it starts, before any imports torch. Several with a thread for each core
# wait for one another more than they work: a file that took 7 s took 90.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARING_A_HOUSE = (
    "test_agent_tools.py",
    "test_clients.py",
    "test_worker.py",
    "test_readme.py",
    "test_flower.py",
    "test_flower_page.py",
    "test_pairs_end_to_end.py",
    "test_search.py",
)


LONGEST = (
    "test_points.py",
    "test_short.py",
    "test_image_steps.py",
    "test_newcomer.py",
    "test_sandbox.py",
)
"""Which begin first: at the end others would wait for them, idle."""


class ByFile(LoadScopeScheduling):
    """With several test processes, a file's tests stay together, as do those that share a house."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "house" if path.endswith(SHARING_A_HOUSE) else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the captions that transformers itself cannot tell from ours (tests/blip_parity.py)."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    ties = [
        text
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == "tie"
    ]
    for text in ties:
        terminalreporter.write_line(f"a tie of the reference's own: {text}")


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest.fixture(scope="session")
def _redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_redis_server: RedisServer) -> RedisServer:
    """A running Redis server, empty."""
    with redis.Redis.from_url(_redis_server.url) as client:
        client.flushall()
    return _redis_server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for cat.example, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=cat.example", "-addext", "subjectAltName=DNS:cat.example",
         "-keyout", str(folder / "pem"), "-out", str(folder / "cert")],
        check=True, capture_output=True,
    )  # fmt: skip
    with (folder / "pem").open("a") as pem:
        pem.write((folder / "cert").read_text())
    return folder / "pem"
