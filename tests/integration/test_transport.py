"""The transport against kombu's own: each test names what kombu's does wrong, and fails with it.

Nobody else's broker is needed: a real Redis, real processes that are really killed.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu
import psutil
import pytest
import redis
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.asynchronous import Hub
from kombu.utils.json import dumps

from producer.contract import CaptionJob
from producer.embedded import RedisServer
from producer.publisher import Publisher
from producer.redis_server import server_binary
from tests.chaos.proxy import Proxy
from worker.leases import SWEEP_LIMIT, Leases
from worker.transport import transport_for

OURS = "worker.transport:Transport"
STOCK = "redis"

QUEUE = Queue("jobs", Exchange("jobs"), routing_key="jobs")


def both(what_stock_does: str) -> pytest.MarkDecorator:
    """Run a test with both transports; kombu's own must fail it."""
    fails = pytest.mark.xfail(strict=True, reason=what_stock_does)
    return pytest.mark.parametrize(
        "transport", [pytest.param(OURS, id="ours"), pytest.param(STOCK, id="stock", marks=fails)]
    )


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def plain(broker: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(broker.url, decode_responses=True) as client:
        yield client


@contextmanager
def connected(broker: RedisServer, transport: str, **options: Any) -> Iterator[Connection]:
    with Connection(broker.url, transport=transport, transport_options=options) as connection:
        yield connection


def send(broker: RedisServer, *bodies: Any, queue: Queue = QUEUE, **properties: Any) -> None:
    """As any Celery client in the world would: by kombu's own transport."""
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        for body in bodies:
            producer.publish(
                body,
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                declare=[queue],
                serializer="json",
                **properties,
            )


class Consumer:
    """Takes what comes; `ack` as it comes, or keeps the messages."""

    def __init__(self, connection: Connection, *queues: Queue, ack: bool = True) -> None:
        self.bodies: list[Any] = []
        self.messages: list[Any] = []
        self._connection = connection
        self._ack = ack
        self.channel = connection.channel()
        self._consumer = kombu.Consumer(
            self.channel, queues or (QUEUE,), callbacks=[self._receive], accept=["json"]
        )
        self._consumer.consume()

    def _receive(self, body: Any, message: Any) -> None:
        self.bodies.append(body)
        if self._ack:
            message.ack()
        else:
            self.messages.append(message)

    def until(self, true: Callable[[], bool], timeout_s: float = 10) -> bool:
        """Take until something is true; whether it became so in time."""
        deadline_s = time.monotonic() + timeout_s
        while not true() and time.monotonic() < deadline_s:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=0.05)
        return true()


KILLED = """
import os, signal, sys
from kombu import Connection
sys.path.insert(0, {root!r})
from tests.integration.test_transport import Consumer
with Connection({url!r}, transport={transport!r}) as connection:
    consumer = Consumer(connection, ack=False)
    channel = consumer.channel
    {how}
    consumer.until(lambda: len(consumer.messages) >= 1, 20)
"""

BETWEEN = """
    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
    channel.connection._callbacks["jobs"] = die
"""


def killed_after_taking(broker: RedisServer, transport: str) -> None:
    """A process that takes a message, and is killed before anything is done with it."""
    root = str(Path(__file__).parents[2])
    program = KILLED.format(root=root, url=broker.url, transport=transport, how=BETWEEN.strip())
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


@both("BRPOP has taken the message, and nothing knows of it")
def test_given_a_worker_killed_right_after_taking_then_the_message_comes_again(
    broker: RedisServer, transport: str
) -> None:
    send(broker, "a job")
    killed_after_taking(broker, transport)
    quick = {"leases": Leases(0.4, sweep_every_s=0.1)} if transport == OURS else {}
    options = {"visibility_timeout": 1, "unacked_restore_throttle": 1}
    with connected(broker, transport, **options, **quick) as connection:
        consumer = Consumer(connection)
        # The lease is the dead process': 20 s, by the clock of Redis. Let it end now.
        with redis.Redis.from_url(broker.url) as client:
            for tag in client.zrange("captionq.leases", 0, -1):
                client.zadd("captionq.leases", {tag: 1})
        assert consumer.until(lambda: consumer.bodies == ["a job"], 5)


@both("a message is restored when the visibility timeout is over, running or not")
def test_given_a_job_that_takes_three_times_the_visibility_timeout_then_it_is_given_out_once(
    broker: RedisServer, transport: str
) -> None:
    send(broker, "a long job")
    options: dict[str, Any] = {"visibility_timeout": 1, "unacked_restore_throttle": 1}

    def more() -> dict[str, Any]:
        return {"leases": Leases(1, sweep_every_s=0.1)} if transport == OURS else {}

    with (
        connected(broker, transport, **options, **more()) as one,
        connected(broker, transport, **options, **more()) as other,
    ):
        holder, idle = Consumer(one, ack=False), Consumer(other)
        holder.until(lambda: bool(holder.messages))
        for _ in range(30):
            holder.until(lambda: False, 0.05)
            idle.until(lambda: False, 0.05)
        assert (holder.bodies, idle.bodies) == (["a long job"], [])
        holder.messages.pop().ack()
        holder.until(lambda: False, 0.2)


@both("a message with an eta is handed over at once, and held by the worker that sits on it")
def test_given_a_message_for_later_then_it_waits_in_redis_and_comes_when_it_is_due(
    broker: RedisServer, plain: "redis.Redis", transport: str
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=2)
    send(broker, "later", headers={"id": "job-1", "eta": due.isoformat()})
    quick = {"leases": Leases(0.4, sweep_every_s=0.1)} if transport == OURS else {}
    with connected(broker, transport, **quick) as connection:
        consumer = Consumer(connection)
        assert not consumer.until(lambda: bool(consumer.bodies), 1)
        assert plain.zcard("captionq.delayed") == 1
        assert plain.zcard("captionq.leases") == 0
        assert consumer.until(lambda: consumer.bodies == ["later"], 5)
        assert datetime.now(UTC) >= due


@both("json.loads raises in the event loop, and the worker ends")
@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b"junk", id="no JSON"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(b'{"properties": []}', id="properties of another kind"),
        pytest.param(
            json.dumps(
                {
                    "body": "%%%",
                    "headers": {},
                    "content-type": "application/json",
                    "content-encoding": "utf-8",
                    "properties": {
                        "delivery_tag": "1",
                        "body_encoding": "rot13",
                        "delivery_info": {},
                    },
                }
            ).encode(),
            id="an unknown encoding",
        ),
        pytest.param(b"[" * 100_000, id="deeper than Python goes"),
    ],
)
def test_given_an_entry_that_is_no_message_then_it_is_buried_and_the_next_one_comes(
    broker: RedisServer, plain: "redis.Redis", transport: str, junk: bytes
) -> None:
    buried: list[tuple[str, str]] = []
    leases = Leases(bury=lambda message, queue, _: buried.append((message, queue)))
    plain.lpush("jobs", junk)
    send(broker, "a job")
    with connected(broker, transport, leases=leases) as connection:
        consumer = Consumer(connection)
        assert consumer.until(lambda: consumer.bodies == ["a job"])
        consumer.until(lambda: not plain.hlen("captionq.inflight"))
    assert buried == [(junk.decode(errors="backslashreplace"), "jobs")]
    assert plain.hlen("captionq.inflight") == 0


@both("an acknowledgement of a message that another worker holds by now removes its record")
def test_given_a_worker_that_lost_its_lease_then_it_cannot_acknowledge_for_the_next(
    broker: RedisServer, plain: "redis.Redis", transport: str
) -> None:
    send(broker, "a job")
    options: dict[str, Any] = {"visibility_timeout": 1, "unacked_restore_throttle": 1}

    def more() -> dict[str, Any]:
        return {"leases": Leases(1, sweep_every_s=0.1)} if transport == OURS else {}

    with (
        connected(broker, transport, **options, **more()) as one,
        connected(broker, transport, **options, **more()) as other,
    ):
        frozen, next_one = Consumer(one, ack=False), Consumer(other, ack=False)
        frozen.until(lambda: bool(frozen.messages))
        next_one.until(lambda: bool(next_one.messages), 10)
        frozen.messages.pop().ack()
        frozen.until(lambda: False, 0.3)
        assert next_one.bodies == ["a job"]
        assert plain.hlen("captionq.inflight") + plain.hlen("unacked") == 1


@both("queues are taken from in turn, whatever their rank")
def test_given_several_queues_then_the_first_is_emptied_before_the_next(
    broker: RedisServer, transport: str
) -> None:
    lanes = [Queue(name, Exchange(name), routing_key=name) for name in ("z", "a", "m")]
    for lane in reversed(lanes):
        send(broker, *[f"{lane.name}{i}" for i in range(5)], queue=lane)
    with connected(broker, transport) as connection:
        consumer = Consumer(connection, *lanes)
        assert consumer.until(lambda: len(consumer.bodies) == 15)
    assert consumer.bodies == [f"{lane.name}{i}" for lane in lanes for i in range(5)]


def test_given_priorities_then_the_most_urgent_comes_first(broker: RedisServer) -> None:
    for priority in (9, 3, 6, 0):
        send(broker, priority, priority=priority)
    with connected(broker, OURS) as connection:
        consumer = Consumer(connection)
        assert consumer.until(lambda: len(consumer.bodies) == 4)
    assert consumer.bodies == [0, 3, 6, 9]


def test_given_an_idle_worker_then_a_new_message_reaches_it_at_once(broker: RedisServer) -> None:
    with connected(broker, OURS) as connection, Connection(broker.url) as client:
        consumer = Consumer(connection)
        producer = client.Producer()
        waits = []
        for i in range(20):
            consumer.until(lambda: False, 0.12)
            producer.publish(i, exchange=QUEUE.exchange, routing_key="jobs", serializer="json")
            began_s = time.perf_counter()
            assert consumer.until(lambda n=i: len(consumer.bodies) == n + 1)  # type: ignore[misc]
            waits.append(time.perf_counter() - began_s)
    assert sorted(waits)[10] < 0.02, waits


def test_given_a_key_prefix_then_all_keys_carry_it(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    options = {"global_keyprefix": "mine:"}
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with connected(broker, OURS, **options) as connection:
        consumer = Consumer(connection, ack=False)
        producer = connection.Producer()
        for headers in ({"id": "1"}, {"id": "2", "eta": later}):
            producer.publish(
                "a job",
                exchange=QUEUE.exchange,
                routing_key="jobs",
                headers=headers,
                serializer="json",
            )
        assert consumer.until(lambda: len(consumer.messages) == 1)
        assert plain.zcard("mine:captionq.delayed") == 1
        assert plain.hlen("mine:captionq.inflight") == 1
        assert [key for key in plain.keys("*") if not key.startswith("mine:")] == []
        consumer.messages.pop().requeue()
        assert consumer.until(lambda: len(consumer.messages) == 1)


def test_given_a_channel_that_is_closed_then_what_it_held_is_next_in_line(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    send(broker, 1, 2, 3)
    with connected(broker, OURS) as connection:
        consumer = Consumer(connection, ack=False)
        consumer.channel.basic_qos(0, 2, False)
        assert consumer.until(lambda: consumer.bodies == [1, 2])
    assert plain.llen("jobs") == 3
    assert plain.hlen("captionq.inflight") == 0
    with connected(broker, OURS) as connection:
        consumer = Consumer(connection)
        assert consumer.until(lambda: consumer.bodies == [1, 2, 3])


def test_given_a_redis_that_restarts_then_what_is_held_can_still_be_acknowledged(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    send(broker, "a job")
    leases = Leases()
    with connected(broker, OURS, leases=leases) as connection:
        consumer = Consumer(connection, ack=False)
        assert consumer.until(lambda: bool(consumer.messages))
    broker.kill()
    consumer.messages[0].ack()
    broker.start()
    leases.renew()
    assert plain.hlen("captionq.inflight") == plain.zcard("captionq.leases") == 0
    assert plain.llen("jobs") == 0


def test_given_messages_nobody_keeps_any_more_then_they_go_back(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    send(broker, 1, 2)
    leases = Leases()
    with connected(broker, OURS, leases=leases) as connection:
        consumer = Consumer(connection, ack=False)
        assert consumer.until(lambda: len(consumer.messages) == 2)
        del consumer.messages[0]
        leases.renew()
        assert (plain.llen("jobs"), leases.held()) == (1, 1)


def test_given_a_full_redis_then_leases_are_renewed_and_messages_taken_all_the_same(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    send(broker, 1, 2)
    leases = Leases()
    with connected(broker, OURS, leases=leases) as connection:
        consumer = Consumer(connection, ack=False)
        consumer.channel.basic_qos(0, 1, False)
        assert consumer.until(lambda: len(consumer.messages) == 1)
        (tag,) = plain.zrange("captionq.leases", 0, -1)
        plain.zadd("captionq.leases", {tag: 1})
        plain.config_set("maxmemory", "1")
        leases.renew()
        assert plain.zscore("captionq.leases", tag) > 1
        consumer.messages.pop().ack()
        assert consumer.until(lambda: consumer.bodies == [1, 2])
        plain.config_set("maxmemory", "0")
        assert leases.return_all() == 1


def test_given_a_redis_whose_clock_jumps_then_owners_renew_before_anybody_sweeps(
    broker: RedisServer, plain: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    """The clock of a server cannot be set from here: the leases and what the sweeper remembers of
    the clock are set back instead, which is the same."""
    send(broker, "a job")
    holder, sweeper = Leases(2, sweep_every_s=0.01), Leases(2, sweep_every_s=0.01)
    with (
        connected(broker, OURS, leases=holder) as one,
        connected(broker, OURS, leases=sweeper) as other,
    ):
        consumer, idle = Consumer(one, ack=False), Consumer(other)
        assert consumer.until(lambda: bool(consumer.messages))
        idle.until(lambda: False, 1)
        (tag,) = plain.zrange("captionq.leases", 0, -1)
        assert sweeper._last_sweep_ms is not None
        then_ms, then_s = sweeper._last_sweep_ms
        plain.zadd("captionq.leases", {tag: then_ms - 3_600_000})
        sweeper._last_sweep_ms = (then_ms - 3_600_000, then_s)
        time.sleep(0.02)
        sweeper.tick()
        assert "has jumped" in caplog.text
        consumer.until(lambda: plain.zscore("captionq.leases", tag) > then_ms, 3)
        idle.until(lambda: False, 1.5)
        assert idle.bodies == []


def test_given_a_process_killed_while_it_holds_messages_then_nothing_is_lost_or_doubled(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    send(broker, *range(50))
    program = (
        KILLED.format(
            root=str(Path(__file__).parents[2]), url=broker.url, transport=OURS, how="pass"
        ).replace(">= 1, 20", ">= 20, 20")
        + "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    held = plain.hlen("captionq.inflight")
    assert held >= 20
    assert held + plain.llen("jobs") == 50
    for tag in plain.zrange("captionq.leases", 0, -1):
        plain.zadd("captionq.leases", {tag: 1})
    with connected(broker, OURS, leases=Leases(0.4, sweep_every_s=0.1)) as connection:
        consumer = Consumer(connection)
        assert consumer.until(lambda: len(consumer.bodies) >= 50)
        consumer.until(lambda: False, 0.5)
    assert sorted(consumer.bodies) == list(range(50))


@pytest.mark.parametrize(
    ("visibility_s", "renew_s", "fits"),
    [(20, None, True), (20, 5, True), (20, 5.1, False), (4, 1, True), (4, 2, False)],
)
def test_given_leases_then_renewals_come_at_least_four_times_in_each(
    visibility_s: float, renew_s: float | None, fits: bool
) -> None:
    if fits:
        Leases(visibility_s, renew_every_s=renew_s)
    else:
        with pytest.raises(ValueError, match="have to be renewed"):
            Leases(visibility_s, renew_every_s=renew_s)


@contextmanager
def sleeper(broker: RedisServer, transport: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker whose task sleeps, as its own process."""
    environment = {
        "SLEEPER_BROKER": broker.url,
        "SLEEPER_TRANSPORT": "ours" if transport == OURS else "stock",
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.sleeper", "worker", "-P", "threads"]
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [*command, "-c", "4"], env=os.environ | environment, stdout=out, stderr=out
        )
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait(30)


@both("it restores through a connection that it has lost, and raises AttributeError: the end")
def test_given_a_redis_that_crashes_while_a_job_runs_then_its_worker_lives_on(
    broker: RedisServer, plain: "redis.Redis", tmp_path: Path, transport: str
) -> None:
    with (
        sleeper(broker, transport, tmp_path / "log") as worker,
        Celery(broker=broker.url, set_as_current=False) as client,
    ):
        client.send_task("sleep", [2], ignore_result=True)
        deadline_s = time.monotonic() + 30
        while not plain.hlen("captionq.inflight") + plain.hlen("unacked"):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        broker.kill()
        broker.start()
        client.send_task("sleep", [0], ignore_result=True)
        while worker.poll() is None and plain.llen("celery") + plain.hlen("captionq.inflight"):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert worker.poll() is None, "the worker ended"


def test_given_a_redis_that_restarts_again_and_again_then_no_connection_is_left_open(
    broker: RedisServer, plain: "redis.Redis", tmp_path: Path
) -> None:
    """Celery's gossip leaves one each time; ours goes without."""
    files: list[int] = []
    with (
        sleeper(broker, OURS, tmp_path / "log") as worker,
        Celery(broker=broker.url, set_as_current=False) as client,
    ):
        for _ in range(8):
            client.send_task("sleep", [0], ignore_result=True)
            deadline_s = time.monotonic() + 30
            while plain.llen("celery") + plain.hlen("captionq.inflight"):
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            files.append(psutil.Process(worker.pid).num_fds())
            broker.restart()
    assert max(files[2:]) <= files[1] + 2, files


@pytest.fixture
def sentinel(tmp_path: Path, broker: RedisServer) -> Iterator[int]:
    """A Redis Sentinel that knows the broker as "mymaster"; its port."""
    master = urlsplit(broker.url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        f"sentinel auth-pass mymaster {master.password}\n"
    )
    process = subprocess.Popen(
        [server_binary(), str(conf), "--sentinel"], stdout=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        with redis.Redis(port=port) as client:
            deadline_s = time.monotonic() + 10
            while True:
                with suppress(redis.RedisError):
                    if client.sentinel_master("mymaster")["is_master"]:
                        break
                assert time.monotonic() < deadline_s, "no Sentinel"
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_given_a_sentinel_then_its_master_is_the_broker(
    broker: RedisServer, plain: "redis.Redis", sentinel: int
) -> None:
    password = urlsplit(broker.url).password
    url = f"sentinel://:{password}@127.0.0.1:{sentinel}"
    publisher = Publisher(url, 10)
    job = CaptionJob(job_id="a", image="https://example.com/a.png")
    publisher.publish([job], time.monotonic() + 10)
    publisher.close()
    assert plain.llen("captionq.caption") == 1
    options = {"master_name": "mymaster", "leases": Leases()}
    transport = transport_for(url)
    with Connection(url, transport=transport, transport_options=options) as connection:
        consumer = Consumer(connection, ack=False)
        send(broker, "a job")
        assert consumer.until(lambda: consumer.bodies == ["a job"])
        assert plain.zcard("captionq.leases") == 1
        consumer.messages.pop().ack()
        consumer.until(lambda: not plain.hlen("captionq.inflight"))
        assert plain.hlen("captionq.inflight") == 0


def test_given_tls_then_messages_come_and_news_of_them_at_once(
    broker: RedisServer, plain: "redis.Redis", certificate: Path
) -> None:
    master = urlsplit(broker.url)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with Proxy(int(master.port or 0), tls) as front:
        url = f"rediss://:{master.password}@127.0.0.1:{front.port}?ssl_cert_reqs=none"
        with Connection(
            url, transport=transport_for(url), transport_options={"leases": Leases()}
        ) as connection:
            consumer = Consumer(connection)
            consumer.until(lambda: False, 0.2)
            send(broker, "a job")
            began_s = time.perf_counter()
            assert consumer.until(lambda: consumer.bodies == ["a job"])
            assert time.perf_counter() - began_s < 0.5
            consumer.until(lambda: not plain.hlen("captionq.inflight"))
            assert plain.hlen("captionq.inflight") == 0


def test_given_an_answer_read_after_its_lease_ended_then_the_message_is_not_run_twice(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    """As when a worker is stopped (SIGSTOP) between asking for a message and being given it."""
    with (
        connected(broker, OURS, leases=Leases(0.4, sweep_every_s=0.05)) as one,
        connected(broker, OURS, leases=Leases(0.4, sweep_every_s=0.05)) as other,
    ):
        stopped = Consumer(one)
        send(broker, "a job")
        stopped.channel.connection.cycle.on_poll_start()
        deadline_s = time.monotonic() + 5
        while not plain.hlen("captionq.inflight"):
            assert time.monotonic() < deadline_s, "nothing was taken"
            time.sleep(0.01)
        idle = Consumer(other, ack=False)
        assert idle.until(lambda: idle.bodies == ["a job"])
        stopped.until(lambda: bool(stopped.bodies), 0.3)
        assert stopped.bodies == []
        send(broker, "another")
        assert stopped.until(lambda: bool(stopped.bodies))


def test_given_a_reply_to_a_control_command_then_nothing_of_it_is_left_behind(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    """`celery inspect -d` reads as many replies as it asked workers, and closes at once."""
    send(broker, "pong")
    with connected(broker, OURS, leases=Leases()) as connection:
        replies: list[Any] = []
        with kombu.Consumer(
            connection.channel(),
            [QUEUE],
            accept=["json"],
            no_ack=True,
            callbacks=[lambda body, _: replies.append(body)],
        ):
            connection.drain_events(timeout=5)
    assert replies == ["pong"]
    assert plain.hlen("captionq.inflight") == plain.zcard("captionq.leases") == 0


def test_given_celery_asks_a_worker_for_its_broker_then_the_answer_can_be_sent(
    broker: RedisServer,
) -> None:
    """`celery inspect stats`, and Flower with it, send what a connection says of itself."""
    with connected(broker, OURS, leases=Leases()) as connection:
        said = json.loads(dumps(connection.info()))
    assert said["transport_options"]["leases"]["visibility_timeout_s"] == 20


@both("every connection adds its callback to the event loop, and none takes it away")
def test_given_many_reconnections_then_the_event_loop_keeps_nothing_of_the_old_ones(
    broker: RedisServer, transport: str
) -> None:
    loop = Hub()
    try:
        for _ in range(3):
            with connected(broker, transport) as connection:
                connection.transport.register_with_event_loop(connection.connection, loop)
                assert len(loop.on_tick) == 1
        assert len(loop.on_tick) == 0
    finally:
        loop.close()


def test_given_a_master_that_was_demoted_then_a_channel_with_an_answer_due_still_closes(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    send(broker, "a job")
    with connected(broker, OURS, leases=Leases()) as connection:
        consumer = Consumer(connection)
        connection.transport.cycle.on_poll_start()
        deadline_s = time.monotonic() + 5
        while not plain.hlen("captionq.inflight"):
            assert time.monotonic() < deadline_s, "nothing was taken"
            time.sleep(0.01)
        plain.execute_command("REPLICAOF", "127.0.0.1", "1")
        consumer.channel.close()
        assert consumer.channel.closed
        plain.execute_command("REPLICAOF", "NO", "ONE")
    assert plain.hlen("captionq.inflight") == 1  # it comes back when its lease ends


def test_given_a_master_that_was_demoted_then_an_idle_worker_looks_for_the_new_one(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    with connected(broker, OURS, leases=Leases()) as connection:
        consumer = Consumer(connection)
        consumer.until(lambda: False, 0.2)
        plain.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(redis.ConnectionError, match="read only replica"):
            consumer.until(lambda: False, 5)
        plain.execute_command("REPLICAOF", "NO", "ONE")


def test_given_an_old_attempt_that_is_delayed_late_then_it_does_not_take_a_later_ones_place(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    """From a worker that was stopped, and does not know that its job went on without it."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with connected(broker, OURS) as connection:
        producer = connection.Producer()
        for retries in (1, 3, 1):
            producer.publish(
                "a job",
                exchange=QUEUE.exchange,
                routing_key="jobs",
                declare=[QUEUE],
                headers={"id": "job", "retries": retries, "eta": later},
                serializer="json",
            )
    assert set(plain.zrange("captionq.delayed", 0, -1)) == {"job:1", "job:3"}
    assert plain.hlen("captionq.delayed.messages") == 2


def test_given_a_socket_in_the_file_system_then_messages_come_by_it(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer(tmp_path / "redis", unixsocket=str(path)) as broker:
        password = urlsplit(broker.url).password
        url = f"redis+socket://:{password}@{path}?virtual_host=0"
        with (
            Connection(
                url, transport=transport_for(url), transport_options={"leases": Leases()}
            ) as connection,
            redis.Redis.from_url(broker.url) as client,
        ):
            consumer = Consumer(connection)
            send(broker, "a job")
            assert consumer.until(lambda: consumer.bodies == ["a job"])
            consumer.until(lambda: not client.hlen("captionq.inflight"))
            assert client.hlen("captionq.inflight") == 0


def test_given_many_messages_that_come_back_at_once_then_all_do_and_in_their_order(
    broker: RedisServer, plain: "redis.Redis"
) -> None:
    send(broker, *range(1_200))
    leases = Leases(bury=lambda *_: None)
    with connected(broker, OURS, leases=leases) as connection:
        consumer = Consumer(connection, ack=False)
        assert consumer.until(lambda: len(consumer.messages) == 1_200, 30)
        for n, message in enumerate(consumer.messages):
            plain.zadd("captionq.leases", {message.delivery_tag: n})
    with connected(broker, OURS, leases=Leases(0.4, sweep_every_s=0.2)) as connection:
        consumer = Consumer(connection)
        assert consumer.until(lambda: len(consumer.bodies) == 1_200, 30)
    for begin in range(0, 1_200, SWEEP_LIMIT):  # what one script queues; the next's goes before it
        page = [body for body in consumer.bodies if begin <= body < begin + SWEEP_LIMIT]
        assert page == sorted(page)
