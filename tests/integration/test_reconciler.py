"""What the broker lost is sent again, once; what only waits is not. On a real Redis."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from producer.contract import CaptionJob, Job, JobResult, JobState, utcnow
from producer.embedded import RedisServer
from producer.ledger import Ledger
from producer.publisher import Publisher
from producer.queues import Lane, queue_for
from producer.redis_store import RedisStore
from producer.wire import WireJob
from tests.house import PNG
from tests.servers import Reply, ScriptedHttp
from tests.worker_process import WorkerProcess
from worker.backlog import Backlog, job_id_of, oldest_ms
from worker.leases import Leases
from worker.reconciler import GRACE_MS, MARGIN_MS, Reconciler, lost

QUEUE = "captionq.caption"
MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("touched_min", "oldest_min", "elsewhere", "expected"),
    [
        pytest.param(-10, math.inf, False, True, id="nothing waits, nobody has it"),
        pytest.param(-10, math.inf, True, False, id="somebody has it, or it waits for its moment"),
        pytest.param(-10, -5, False, True, id="older than all that wait"),
        pytest.param(-10, -20, False, False, id="behind others in a backlog"),
        pytest.param(-10, -9.5, False, False, id="so near the oldest that it may just come"),
        pytest.param(-10, -math.inf, False, False, id="nobody knows how old those are that wait"),
        pytest.param(-0.5, math.inf, False, False, id="something has just happened to it"),
    ],
)
def test_a_job_is_lost_only_if_it_is_nowhere(
    touched_min: float, oldest_min: float, elsewhere: bool, expected: bool
) -> None:
    now = 1e12
    asked: list[bool] = []

    def others() -> set[str]:
        asked.append(True)
        return {"a"} if elsewhere else set()

    candidates = {"a": now + touched_min * MINUTE_MS, "fresh": now}
    found = lost(candidates, now + oldest_min * MINUTE_MS, others, now)
    assert found == ({"a"} if expected else set())
    assert bool(asked) == (expected or elsewhere), "the broker is searched only when it matters"
    assert (GRACE_MS, MARGIN_MS) == (MINUTE_MS, MINUTE_MS)


@pytest.mark.parametrize(
    ("next_in_line", "expected"),
    [
        ([], math.inf),
        ([[5.0, 3.0, None]], 3.0),
        ([[5.0], [4.0], [9.0]], 4.0),
        ([[5.0], [None, None]], -math.inf),
        ([[]], -math.inf),
    ],
)
def test_the_oldest_that_waits_is_told_or_not_guessed(
    next_in_line: list[list[float | None]], expected: float
) -> None:
    assert oldest_ms(next_in_line) == expected


@pytest.mark.parametrize(
    "raw",
    ["", "junk", "[]", "{}", '{"body": 1}', '{"headers": []}', '{"headers": {}}', "[" * 9_999],
)
def test_given_what_is_no_message_then_it_is_of_no_job(raw: str) -> None:
    assert job_id_of(raw) is None


class World:
    """A ledger, a queue, and reconcilers over them. Time is moved by setting moments back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = redis.Redis.from_url(url, decode_responses=True)
        self.store = RedisStore(url)
        self.publisher = Publisher(url, 10)
        self.sent: list[tuple[str, str, int]] = []

    def submit(
        self, *names: str, minutes_ago: float, sent: bool = True, lane: Lane = "interactive"
    ) -> None:
        image = "https://example.com/a.png"
        jobs: list[Job] = [
            CaptionJob(job_id=name, image=image, submitted_at=utcnow(), lane=lane) for name in names
        ]
        self.store.create_many(jobs)
        if sent:
            self.publisher.publish(jobs, time.monotonic() + 10)
        self.age(*names, minutes=minutes_ago, lane=lane)

    def age(self, *names: str, minutes: float, lane: Lane = "interactive") -> None:
        queue = queue_for("caption", lane=lane)
        then = round(self.redis.time()[0] * 1_000 - minutes * MINUTE_MS)
        keys = [f"captionq:job:{name}" for name in names]
        with self.redis.pipeline() as pipeline:
            pipeline.zadd(f"captionq:open:{queue}", dict.fromkeys(keys, then))
            for key in keys:
                pipeline.hset(key, "opened_ms", then)
            pipeline.execute()

    def reconciler(
        self, send: Callable[[WireJob, str, int], None] | None = None, **options: Any
    ) -> Reconciler:
        def noted(job: WireJob, queue: str, attempt: int) -> None:
            self.sent.append((str(job.job_id), queue, attempt))

        ledger = Ledger(86_400, 604_800, "captionq:")
        return Reconciler(ledger, self.redis, Backlog(self.redis), send or noted, **options)

    def passes(self, times: int = 2) -> list[int]:
        reconciler = self.reconciler()
        found = [reconciler.run_once() for _ in range(times)]
        self.redis.delete("captionq:reconciler")
        return found

    def take(self) -> Any:
        """Take one message, as a worker that then says nothing: it is in flight."""
        connection = Connection(
            self.url, transport="worker.transport:Transport", transport_options={"leases": Leases()}
        )
        return connection.channel().basic_get(QUEUE)


@pytest.fixture
def world(redis_server: RedisServer) -> Iterator[World]:
    world = World(redis_server.url)
    yield world
    world.publisher.close()
    world.store.close()
    world.redis.close()


def test_given_a_job_whose_message_was_never_sent_then_it_is_sent_at_the_second_pass(
    world: World,
) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    assert world.passes(3) == [0, 1, 0]
    assert world.sent == [("a", QUEUE, 1)]


def test_given_a_backlog_in_each_lane_then_what_is_missing_is_sent_to_its_own_lane(
    world: World,
) -> None:
    """A lane's jobs are judged by their own queue: the other may be empty, or far older."""
    world.submit("bulk-lost", minutes_ago=300, sent=False, lane="bulk")
    world.submit("bulk-waiting", minutes_ago=200, lane="bulk")
    world.submit("lost", minutes_ago=5, sent=False)
    world.submit("waiting", minutes_ago=2)
    assert world.passes(3) == [0, 2, 0]
    assert sorted(world.sent) == [("bulk-lost", f"{QUEUE}.bulk", 1), ("lost", QUEUE, 1)]


def test_given_several_lost_jobs_then_the_oldest_is_sent_first(world: World) -> None:
    for minutes, name in enumerate("gafbecd", start=2):
        world.submit(name, minutes_ago=minutes, sent=False)
    assert world.passes() == [0, 7]
    assert [name for name, _, _ in world.sent] == list("dcebfag")


def test_given_a_job_that_was_lost_in_its_second_attempt_then_it_goes_on_there(
    world: World,
) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    world.store.start("a", "caption", 2, "worker@host")
    world.age("a", minutes=5)
    assert world.passes() == [0, 1]
    assert world.sent == [("a", QUEUE, 2)]


def test_given_a_deep_and_old_backlog_then_only_what_is_missing_from_it_is_sent(
    world: World,
) -> None:
    world.submit("lost", minutes_ago=300, sent=False)
    waiting = [f"waiting-{n}" for n in range(300)]
    world.submit(*waiting, minutes_ago=200)
    assert world.passes(3) == [0, 1, 0]
    assert world.sent == [("lost", QUEUE, 1)]
    world.redis.delete(QUEUE)
    assert world.passes(3) == [0, 300, 0]
    assert {name for name, _, _ in world.sent} == {"lost", *waiting}


def test_given_returned_messages_before_a_backlog_then_none_of_it_is_sent(world: World) -> None:
    world.submit("returned", minutes_ago=200)
    world.submit("waiting", minutes_ago=190)
    message = world.take()
    world.store.start("returned", "caption", 1, "worker@host")
    message.requeue()
    world.redis.rpush(QUEUE, world.redis.lpop(QUEUE))
    assert world.passes(3) == [0, 0, 0]


@pytest.mark.parametrize("before", [150, 1_100])
def test_given_a_job_behind_many_younger_ones_that_were_returned_then_it_is_not_sent(
    world: World, before: int
) -> None:
    """Messages of a dead worker, or those due at the same time, come back in any order."""
    world.submit("old", minutes_ago=200)
    (old,) = world.redis.lrange(QUEUE, 0, -1)
    younger = [f"younger-{n}" for n in range(before)]
    world.submit(*younger, minutes_ago=190)
    world.redis.rpop(QUEUE)
    world.redis.lpush(QUEUE, old)
    world.submit("behind", minutes_ago=180)
    assert job_id_of(world.redis.lindex(QUEUE, 1) or "") == "old"
    assert world.passes(3) == [0, 0, 0]
    world.redis.lrem(QUEUE, 1, old)
    assert world.passes(3) == [0, 1, 0]
    assert world.sent == [("old", QUEUE, 1)]


def test_given_a_job_in_flight_for_long_then_it_is_not_sent(world: World) -> None:
    world.submit("a", minutes_ago=5)
    message = world.take()
    assert message is not None
    assert world.redis.llen(QUEUE) == 0
    world.submit(*(f"waiting-{n}" for n in range(50)), minutes_ago=1)
    world.passes(1)
    before = world.redis.info("commandstats")["cmdstat_lrange"]["calls"]  # type: ignore[index]
    assert world.passes(3) == [0, 0, 0]
    after = world.redis.info("commandstats")["cmdstat_lrange"]["calls"]  # type: ignore[index]
    assert after - before == 3 * 4, "the ends of four lists in each pass; nothing is searched"
    message.ack()


def test_given_a_job_that_waits_for_its_moment_then_it_is_not_sent(world: World) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    world.redis.zadd("captionq.delayed", {"a:2": 9e15})
    assert world.passes(3) == [0, 0, 0]


def test_given_messages_that_tell_nothing_then_nothing_behind_them_is_called_lost(
    world: World,
) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    world.redis.lpush(QUEUE, "junk", json.dumps({"headers": {"id": "foreign"}}))
    assert world.passes(3) == [0, 0, 0]


def test_given_jobs_that_ended_or_are_forgotten_then_they_leave_the_index_unsent(
    world: World,
) -> None:
    world.submit("gone", minutes_ago=5, sent=False)
    world.redis.delete("captionq:job:gone")
    world.submit("ended", minutes_ago=5, sent=False)
    end = JobResult(
        job_id="ended", task="caption", state=JobState.CANCELLED, attempts=0, finished_at=utcnow()
    )
    world.store.finish(end)
    world.age("ended", minutes=5)
    assert world.passes(3) == [0, 0, 0]
    assert world.redis.zcard(f"captionq:open:{QUEUE}") == 0
    assert world.sent == []


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"task": "segment"}, id="of no task"),
        pytest.param({"job": "{}"}, id="no job"),
        pytest.param({"job": '{"job_id": "other", "image": "https://e.x/a.png"}'}, id="another's"),
    ],
)
def test_given_a_record_that_no_client_wrote_then_it_is_not_sent_and_others_are(
    world: World, fields: dict[str, str]
) -> None:
    world.submit("forged", minutes_ago=6, sent=False)
    world.submit("lost", minutes_ago=5, sent=False)
    world.redis.hset("captionq:job:forged", mapping=fields)  # type: ignore[arg-type]
    assert world.passes() == [0, 1]
    assert world.sent == [("lost", QUEUE, 1)]


def test_given_a_record_of_another_version_then_what_is_sent_is_what_was_recorded(
    world: World,
) -> None:
    """Without defaults filled in: its signature is of what its producer wrote."""
    world.submit("a", minutes_ago=5, sent=False)
    recorded = {"signature": "v1", "job_id": "a", "image": "https://example.com/a.png"}
    world.redis.hset("captionq:job:a", "job", json.dumps(recorded))
    sent: list[WireJob] = []
    reconciler = world.reconciler(lambda job, *_: sent.append(job))
    assert [reconciler.run_once(), reconciler.run_once()] == [0, 1]
    assert [dict(job.body) for job in sent] == [recorded]


def test_given_several_workers_then_one_reconciles_until_it_is_gone(world: World) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    one, other = world.reconciler(), world.reconciler()
    assert [one.run_once(), other.run_once(), other.run_once()] == [0, 0, 0]
    assert one.run_once() == 1
    world.age("a", minutes=5)
    world.redis.delete("captionq:reconciler")  # its life is over
    assert [other.run_once(), one.run_once(), other.run_once()] == [0, 0, 1]


def test_given_a_reconciler_that_slept_with_the_lock_in_its_hand_then_it_sends_nothing(
    world: World,
) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    sleeper, other = world.reconciler(), world.reconciler()
    sleeper.run_once()
    judged = sleeper._lost(QUEUE)
    world.redis.delete("captionq:reconciler")
    other.run_once()
    assert len(judged) == 1
    assert sleeper._send_again([(one, QUEUE) for one in judged]) == 0
    assert world.sent == []
    assert other.run_once() == 1


def test_given_a_job_that_moved_since_it_was_judged_then_it_is_not_sent(world: World) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    reconciler = world.reconciler()
    reconciler.run_once()
    (judged,) = reconciler._lost(QUEUE)
    world.store.start("a", "caption", 1, "worker@host")
    assert reconciler._send_again([(judged, QUEUE)]) == 0
    assert world.sent == []


def test_given_a_broker_that_takes_nothing_then_the_pass_ends_and_jobs_are_left_for_later(
    world: World,
) -> None:
    world.submit("a", "b", "c", minutes_ago=5, sent=False)
    tried = []

    def away(job: WireJob, *_: Any) -> None:
        tried.append(job.job_id)
        raise ConnectionError("away")

    reconciler = world.reconciler(away)
    assert [reconciler.run_once(), reconciler.run_once()] == [0, 0]
    assert len(tried) == 1
    world.age(str(tried[0]), minutes=5)
    world.redis.delete("captionq:reconciler")
    assert world.passes() == [0, 3]


def test_given_a_reconciler_that_is_closed_then_another_goes_on_at_once(world: World) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    one, other, third = world.reconciler(), world.reconciler(), world.reconciler()
    assert one.run_once() == other.run_once() == 0
    other.close()
    assert third.run_once() == 0
    assert one.run_once() == 1, "who never had the lock cannot give it away"
    world.age("a", minutes=5)
    one.close()
    assert [third.run_once(), third.run_once()] == [0, 1]


def test_given_a_reconciler_that_is_closed_in_a_pass_then_it_sends_no_more(world: World) -> None:
    world.submit("a", "b", "c", minutes_ago=5, sent=False)
    sent = []

    def send(job: WireJob, *_: Any) -> None:
        sent.append(job.job_id)
        reconciler.close()

    reconciler = world.reconciler(send)
    assert [reconciler.run_once(), reconciler.run_once()] == [0, 1]
    assert len(sent) == 1


def test_given_a_reconciler_that_runs_by_itself_then_it_outlives_an_outage(
    world: World, redis_server: RedisServer
) -> None:
    world.submit("a", minutes_ago=5, sent=False)
    reconciler = world.reconciler(every_s=0.05)
    redis_server.stop()
    reconciler.start()
    time.sleep(0.3)
    redis_server.start()
    deadline_s = time.monotonic() + 10
    while not world.sent and time.monotonic() < deadline_s:
        time.sleep(0.02)
    reconciler.close()
    assert world.sent == [("a", QUEUE, 1)]


def test_given_many_open_jobs_that_wait_then_a_pass_looks_at_few_of_them(world: World) -> None:
    """`python -m tests.chaos reconcile` measures the same with a million."""
    names = [f"job-{n}" for n in range(5_000)]
    for begin in range(0, len(names), 500):
        world.submit(*names[begin : begin + 500], minutes_ago=60 - begin / 500)
    before = world.redis.info("commandstats")
    assert world.passes(2) == [0, 0]
    after = world.redis.info("commandstats")
    calls = {
        name: stats["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, stats in after.items()
    }
    assert sum(calls.values()) < 600, calls


def test_given_a_job_that_was_recorded_and_never_sent_then_a_worker_sends_and_runs_it(
    redis_server: RedisServer, tmp_path: Path, world: World
) -> None:
    with ScriptedHttp({"/ok.png": [Reply(200, PNG)]}) as web:
        lost = CaptionJob(job_id="lost", image=web.url("/ok.png"), submitted_at=utcnow())
        environment = {
            "CAPTIONQ_BROKER_URL": redis_server.url,
            "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{web.port}",
            "CAPTIONQ_MATCH_MODEL": "none",
            "CAPTIONQ_MAX_BATCH": "1",
            "CAPTIONQ_RECONCILE_EVERY_S": "0.2",
        }
        world.store.create(lost)
        world.age("lost", minutes=5)
        with WorkerProcess(tmp_path / "worker.log", environment) as worker:
            (result,) = world.store.wait(["lost"], 30)
            again = world.redis.exists(QUEUE)
            log = worker.log
    assert result.state is JobState.SUCCEEDED
    assert result.attempts == 1
    assert log.count("job lost is sent again") == 1
    assert "the broker had lost jobs: 1 sent again" in log
    assert (web.hits("/ok.png"), again) == (1, 0)
    assert not world.redis.exists("captionq:reconciler"), "the lock is left to the next worker"


def test_given_a_job_lost_in_its_second_attempt_then_what_is_sent_is_what_its_producer_sent(
    redis_server: RedisServer, tmp_path: Path, world: World
) -> None:
    """By worker.app itself, in a process of its own: the message is read as it lies."""
    world.submit("a", minutes_ago=5)
    original = json.loads(world.redis.rpop(QUEUE) or "")
    code = (
        "import sys; from worker.app import send_again; from producer.wire import WireJob;"
        "send_again(WireJob.read('caption', sys.stdin.read()), 'captionq.caption', 2)"
    )
    job = world.redis.hget("captionq:job:a", "job")
    environment = os.environ | {"CAPTIONQ_BROKER_URL": redis_server.url}
    subprocess.run(
        [sys.executable, "-c", code],
        input=job,
        env=environment,
        text=True,
        check=True,
        timeout=60,
        cwd=tmp_path,
    )
    again = json.loads(world.redis.rpop(QUEUE) or "")
    assert again["headers"]["retries"] == 1
    assert original["headers"]["retries"] == 0
    for name in ("id", "task", "kwargsrepr", "ignore_result", "lang"):
        assert again["headers"][name] == original["headers"][name], name
    assert again["body"] == original["body"]
