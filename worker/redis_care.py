"""Whether a Redis is set up to keep what it is given; said once, when a worker starts."""

import logging
from typing import Any

import redis

log = logging.getLogger(__name__)


def faults(info: dict[str, Any]) -> list[str]:
    """What is wrong with a Redis, by its INFO: each names the setting.

    >>> faults({"maxmemory_policy": "noeviction", "aof_enabled": 1})
    []
    """
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"maxmemory-policy is {policy}: when memory is short Redis drops jobs and results; set "
            "it to noeviction, and submitting is refused instead"
        )
    if not int(info.get("aof_enabled", 1)):
        found.append(
            "appendonly is off: what was submitted since the last snapshot is lost when Redis "
            "ends; set appendonly yes, and appendfsync always where no second may be lost"
        )
    return found


def warn(used_for: str, client: redis.Redis) -> None:
    """Log the faults of one Redis; of one that may not be asked, that."""
    try:
        info: Any = client.info()
    except redis.RedisError as exc:
        log.info("the Redis of %s does not say how it is set up: %s", used_for, exc)
        return
    for fault in faults(info):
        log.warning("the Redis of %s: %s", used_for, fault)
