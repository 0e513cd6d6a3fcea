"""What a worker says of a Redis that may drop what it is given."""

import logging
from contextlib import closing
from pathlib import Path

import pytest

from producer.redis_at import redis_at
from producer.redis_server import RedisServer
from tests.redis_users import ServerOfUsers
from worker.redis_care import warn


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({}, []),
        ({"maxmemory_policy": "allkeys-lru"}, ["maxmemory-policy is allkeys-lru"]),
        ({"appendonly": "no"}, ["appendonly is off"]),
        (
            {"maxmemory_policy": "volatile-ttl", "appendonly": "no"},
            ["maxmemory-policy is volatile-ttl", "appendonly is off"],
        ),
    ],
    ids=lambda value: str(len(value)),
)
def test_given_a_redis_its_faults_are_named_by_their_settings(
    config: dict[str, str], named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    options = {name.replace("_", "-"): value for name, value in config.items()}
    with RedisServer(**options) as server, closing(redis_at(server.url)) as client:
        warn("results", client)
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == len(named)
    assert all(
        f"the Redis of results: {name}" in line for name, line in zip(named, said, strict=True)
    )


def test_given_a_user_that_may_not_ask_the_worker_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = ServerOfUsers(tmp_path / "redis")
    with server, closing(redis_at(server.url_of("producer"))) as client:
        warn("results", client)
    assert "does not say how it is set up" in caplog.text
