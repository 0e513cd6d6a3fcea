"""Fixtures for all tests: a real Redis server, a whole house; which tests share a process."""

from collections.abc import Iterator

import pytest
import redis

from producer.embedded import RedisServer
from tests.house import House, open_house

SHARING_A_HOUSE = ("test_worker.py", "test_readme.py", "test_flower.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several test processes, a file's tests stay together, as do those that share a house."""
    for item in items:
        group = "house" if item.path.name in SHARING_A_HOUSE else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


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
