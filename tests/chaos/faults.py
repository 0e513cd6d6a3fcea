"""What may befall the world: each fault takes a while, is undone, and says what it was."""

import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import redis

from tests.chaos.world import Worker, World


class Fault(NamedTuple):
    """One fault that happened. Moments are seconds of CLOCK_MONOTONIC.

    `pids` are the processes it touched; none means all.
    """

    name: str
    at_s: float
    length_s: float
    pids: frozenset[int]


Act = Callable[[World, Worker, float], float | None]
"""Does a fault to a world or to one worker of it, lasting about so many seconds; returns how long
it lasted if not from beginning to end of the call."""


def kill(_: World, worker: Worker, __: float) -> None:
    """kill -9 of a worker."""
    worker.signal(signal.SIGKILL, worker.pid)


def terminate(_: World, worker: Worker, __: float) -> float:
    """SIGTERM of a worker."""
    worker.signal(signal.SIGTERM, worker.pid)
    return 0.0


def terminate_twice(_: World, worker: Worker, __: float) -> float:
    """SIGTERM of a worker, and again a moment later."""
    pid = worker.pid
    worker.signal(signal.SIGTERM, pid)
    time.sleep(0.3)
    worker.signal(signal.SIGTERM, pid)
    return 0.3


def freeze(_: World, worker: Worker, length_s: float) -> None:
    """SIGSTOP of a worker, and SIGCONT."""
    pid = worker.pid
    worker.signal(signal.SIGSTOP, pid)
    time.sleep(length_s)
    worker.signal(signal.SIGCONT, pid)


def redis_kill(world: World, _: Worker, length_s: float) -> None:
    """kill -9 of Redis, and a start."""
    world.redis.kill()
    time.sleep(length_s / 4)
    world.redis.start()


def power_cut(world: World, _: Worker, length_s: float) -> None:
    """The end of Redis' host, which had not written the last second to its disk; and a start."""
    world.redis.kill()
    world.tail.cut(time.monotonic())
    time.sleep(length_s / 4)
    world.redis.start()


def redis_restart(world: World, _: Worker, length_s: float) -> None:
    """Redis is stopped in order, and started."""
    world.redis.stop()
    time.sleep(length_s / 4)
    world.redis.start()


def redis_freeze(world: World, _: Worker, length_s: float) -> None:
    """SIGSTOP of Redis, and SIGCONT."""
    process = world.redis._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    time.sleep(length_s / 2)
    process.send_signal(signal.SIGCONT)


def cut(_: World, worker: Worker, __: float) -> None:
    """All connections between a worker and Redis are reset."""
    worker.proxy.cut()


def partition(_: World, worker: Worker, length_s: float) -> None:
    """Nothing passes between a worker and Redis for a while."""
    worker.proxy.freeze()
    time.sleep(length_s)
    worker.proxy.thaw()


def refuse(_: World, worker: Worker, length_s: float) -> None:
    """A worker cannot connect to Redis for a while."""
    worker.proxy.refuse(True)
    time.sleep(length_s / 2)
    worker.proxy.refuse(False)


def s3_down(world: World, _: Worker, length_s: float) -> None:
    """S3 is away."""
    world.s3.refuse(True)
    time.sleep(length_s / 4)
    world.s3.refuse(False)


def hooks_down(world: World, _: Worker, length_s: float) -> None:
    """Who is told of results is away."""
    world.hooks.away = True
    time.sleep(length_s / 4)
    world.hooks.away = False


def full(world: World, _: Worker, length_s: float) -> None:
    """Redis has no memory left to write."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.config_set("maxmemory", "1")
        time.sleep(length_s / 4)
        client.config_set("maxmemory", "0")


def clock(world: World, worker: Worker, length_s: float) -> None:
    """A worker's wall clock jumps by hours, and back."""
    world.ledger.set_clock(worker.name, random.Random(worker.pid).choice((-7_200, 3_600)))
    time.sleep(length_s)
    world.ledger.set_clock(worker.name, 0)


KILL = "kill -9 of a worker"
SIGTERM = "SIGTERM of a worker"
SIGTERM_TWICE = "SIGTERM, twice"
POWER_CUT = "power cut of Redis"
S3_DOWN = "S3 down"
HOOKS_DOWN = "receiver down"
CLOCK_JUMP = "clock jump"

SPARING = frozenset({SIGTERM, SIGTERM_TWICE, S3_DOWN, HOOKS_DOWN, CLOCK_JUMP})
"""Faults that cost no delivery: a planned end undoes the count, the others end no process."""

ACTS: dict[str, tuple[Act, float]] = {
    KILL: (kill, 8),
    SIGTERM: (terminate, 2),
    SIGTERM_TWICE: (terminate_twice, 2),
    "SIGSTOP of a worker": (freeze, 2),
    "kill -9 of Redis": (redis_kill, 1.2),
    POWER_CUT: (power_cut, 0),  # where Redis does not write at once: see run.Plan
    "restart of Redis": (redis_restart, 1),
    "SIGSTOP of Redis": (redis_freeze, 0.5),
    "connection cut": (cut, 2),
    "connection frozen": (partition, 1),
    "connection refused": (refuse, 1),
    S3_DOWN: (s3_down, 0.5),
    HOOKS_DOWN: (hooks_down, 0.5),
    "Redis full": (full, 0.5),
    CLOCK_JUMP: (clock, 1),
}
"""Faults by name, and how often they come compared with each other."""

OF_ONE_WORKER = frozenset((kill, terminate, terminate_twice, freeze, cut, partition, refuse, clock))


def happen(
    world: World, worker: Worker, rng: random.Random, name: str, visibility_s: float
) -> Fault:
    """Let a fault happen, to that worker if to one; it may last shorter or longer than the
    visibility timeout."""
    act, _ = ACTS[name]
    length_s = visibility_s * rng.choice((0.1, 0.3, 0.6, 1.3))
    pids = frozenset({worker.pid}) if act in OF_ONE_WORKER else frozenset[int]()
    at_s = time.monotonic()
    lasted_s = act(world, worker, length_s)
    return Fault(name, at_s, time.monotonic() - at_s if lasted_s is None else lasted_s, pids)
