"""Leases against a real Redis that hangs, whose clock jumps, and that has much to give back."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from producer.embedded import RedisServer
from worker.inflight import TAKE, Keys
from worker.leases import Leases

KEYS = Keys()


class Message:
    """What somebody keeps while it is worked on."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def plain(broker: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(broker.url, decode_responses=True, socket_timeout=20) as client:
        yield client


def attached(client: "redis.Redis", visibility_timeout_s: float = 20) -> Leases:
    leases = Leases(visibility_timeout_s, sweep_every_s=0.01)
    leases.attach(client, KEYS)
    return leases


def take(client: "redis.Redis", leases: Leases, tag: str) -> None:
    script: Any = client.register_script(TAKE)
    assert script(["jobs"], [KEYS.inflight, KEYS.leases, tag, leases.lease_ms])


@pytest.mark.parametrize("late", [False, True])
def test_given_a_take_whose_answer_nobody_read_when_all_goes_back_then_its_message_does_too(
    broker: RedisServer, plain: "redis.Redis", monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Redis may have read the take before, or only after, the messages went back."""
    plain.lpush("jobs", "held", "asked for")
    leases = attached(plain)
    take(plain, leases, "a")
    held = Message()
    leases.hold("a", held)
    leases.asked("b")
    if late:
        monkeypatch.setattr(time, "sleep", lambda _: take(plain, leases, "b"))
    else:
        take(plain, leases, "b")
    assert leases.return_all() == 2
    assert plain.hlen(KEYS.inflight) == plain.zcard(KEYS.leases) == 0
    assert sorted(plain.lrange("jobs", 0, -1)) == ["asked for", "held"]


def test_given_a_take_that_was_answered_when_all_goes_back_then_nothing_is_looked_for_twice(
    broker: RedisServer, plain: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    leases = attached(plain)
    leases.asked("a")
    leases.answered("a")
    assert leases.return_all() == 0


def past_its_first_seconds(sweeper: Leases) -> None:
    """Let a sweeper sweep from now on, and have swept once."""
    deadline_s = time.monotonic() + 20
    while sweeper._last_sweep_ms is None:
        assert time.monotonic() < deadline_s
        ticked(sweeper)
        time.sleep(0.01)


def test_given_a_redis_that_hung_longer_than_leases_last_then_owners_renew_before_anybody_sweeps(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    plain.lpush("jobs", "a job")
    impatient = redis.Redis.from_url(broker.url, socket_timeout=0.4)
    holder, sweeper = attached(plain, 2), attached(impatient, 2)
    past_its_first_seconds(sweeper)
    message = Message()
    take(plain, holder, "tag")
    holder.hold("tag", message)
    process = int(plain.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        ended_s = time.monotonic() + 2.2
        while time.monotonic() < ended_s:
            with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
                sweeper.tick()
    finally:
        os.kill(process, signal.SIGCONT)
    deadline_s = time.monotonic() + 10
    while not ticked(sweeper):
        assert time.monotonic() < deadline_s
    assert plain.llen("jobs") == 0, "swept before its owner could renew"
    swept = sweeper._last_sweep_ms
    while sweeper._last_sweep_ms == swept:
        assert time.monotonic() < deadline_s
        holder.renew()
        ticked(sweeper)
        time.sleep(0.01)
    assert plain.hexists(KEYS.inflight, "tag")
    impatient.close()


def ticked(leases: Leases) -> bool:
    """Whether Redis answered what was due."""
    with suppress(redis.TimeoutError, redis.ConnectionError):
        leases.tick()
        return True
    return False


def test_given_more_ended_leases_than_one_script_takes_then_one_sweep_returns_them_all(
    plain: "redis.Redis",
) -> None:
    plain.lpush("jobs", *range(350))
    sweeper = attached(plain, 1)
    for tag in range(350):
        take(plain, sweeper, str(tag))
        plain.zadd(KEYS.leases, {str(tag): 1 + tag})
    past_its_first_seconds(sweeper)
    assert plain.hlen(KEYS.inflight) == 0
    assert plain.llen("jobs") == 350


def test_given_a_redis_whose_clock_jumps_back_then_what_the_dead_held_is_not_kept_until_it_is_back(
    plain: "redis.Redis",
) -> None:
    """The clock of a server cannot be set from here: the leases and what the sweeper remembers of
    the clock are set ahead instead, which is the same."""
    plain.lpush("jobs", "of the dead")
    sweeper = attached(plain, 1)
    past_its_first_seconds(sweeper)
    take(plain, sweeper, "tag")
    assert sweeper._last_sweep_ms is not None
    then_ms, then_s = sweeper._last_sweep_ms
    plain.zadd(KEYS.leases, {"tag": then_ms + 3_600_000})
    sweeper._last_sweep_ms = (then_ms + 3_600_000, then_s)
    deadline_s = time.monotonic() + 5
    while not plain.llen("jobs"):
        assert time.monotonic() < deadline_s, "it waits for an hour"
        sweeper.tick()
        time.sleep(0.02)


def test_given_leases_that_ended_in_an_outage_then_they_are_renewed_as_soon_as_redis_is_back(
    plain: "redis.Redis",
) -> None:
    plain.lpush("jobs", "a job")
    holder = attached(plain)
    message = Message()
    take(plain, holder, "tag")
    holder.hold("tag", message)
    plain.zadd(KEYS.leases, {"tag": 1})
    holder.attach(plain, KEYS)
    assert (plain.zscore(KEYS.leases, "tag") or 0) > 1


def test_given_messages_that_other_threads_hold_and_let_go_then_bulk_is_counted_meanwhile() -> None:
    """The event loop counts before every take, while the threads of jobs acknowledge."""
    leases, message, over = Leases(), Message(), threading.Event()
    leases.bulk_slots = 1_000
    for number in range(100):
        leases.hold(str(number), message, 1)

    def churn(name: str) -> None:
        while not over.is_set():
            leases.hold(name, message, 1)
            leases.release(name)

    before_s = sys.getswitchinterval()
    with ThreadPoolExecutor(2) as threads:
        try:
            sys.setswitchinterval(1e-6)
            churning = [threads.submit(churn, name) for name in "ab"]
            counted = {leases.bulk_held() for _ in range(5_000)}
        finally:
            sys.setswitchinterval(before_s)
            over.set()
        for one in churning:
            one.result(5)
    assert counted <= {100, 101, 102}
