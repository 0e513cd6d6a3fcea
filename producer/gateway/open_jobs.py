"""Jobs that have not ended, as the results store knows them: told by the gateway, since there may
be no worker to tell of its queues, nor one that serves a model that jobs ask for."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import redis.asyncio

from producer.ledger import Ledger
from producer.queues import BULK, INTERACTIVE, Lane, is_bulk

TIMEOUT_S = 2.0
"""A scrape must not hang as long as Redis does."""

MOST_QUEUES = 1_000
"""Whoever submits may name models."""


class OpenJobs(NamedTuple):
    """Those of one lane: how many, and since when, in seconds, nothing has happened to one."""

    jobs: int = 0
    oldest_s: float = 0.0


async def open_jobs(client: redis.asyncio.Redis, ledger: Ledger) -> Mapping[Lane, OpenJobs]:
    """Those of each lane; nothing when the store does not answer in time.

    Args:
        client: of the results store, with `decode_responses`.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _read(client, ledger)
    except (redis.RedisError, OSError):  # TimeoutError is one
        return {}


async def _read(client: redis.asyncio.Redis, ledger: Ledger) -> Mapping[Lane, OpenJobs]:
    known: Any = await client.smembers(ledger.open_key())
    queues: list[str] = sorted(known)[:MOST_QUEUES]
    async with client.pipeline(transaction=False) as step:
        step.time()
        for queue in queues:
            step.zcount(ledger.open_key(queue), "-inf", "+inf")
            step.zrange(ledger.open_key(queue), 0, 0, withscores=True)
        (seconds, microseconds), *said = await step.execute()
    now_s = seconds + microseconds / 1e6
    found: dict[Lane, OpenJobs] = {INTERACTIVE: OpenJobs(), BULK: OpenJobs()}
    for queue, count, first in zip(queues, said[::2], said[1::2], strict=True):
        lane = BULK if is_bulk(queue) else INTERACTIVE
        before = found[lane]
        quiet_s = max((now_s - float(touched_ms) / 1e3 for _, touched_ms in first), default=0.0)
        found[lane] = OpenJobs(before.jobs + count, max(before.oldest_s, quiet_s))
    return found
