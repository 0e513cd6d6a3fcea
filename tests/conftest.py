"""Fixtures for all tests: a real Redis server."""

from collections.abc import Iterator

import pytest
import redis

from producer.embedded import RedisServer


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
