"""Lanes on a real broker: the order of takes, bulk's slots, and who is woken when one is free."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Exchange, Queue
from kombu.asynchronous import Hub

from producer.embedded import RedisServer
from tests.integration.test_transport import OURS, Consumer, connected, send
from worker.lanes import INTERACTIVE_IN_A_ROW
from worker.leases import Leases


def queue(name: str) -> Queue:
    return Queue(name, Exchange(name), routing_key=name)


QUICK, BULK, PLAIN = queue("captionq.caption"), queue("captionq.caption.bulk"), queue("celery")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def slotted(bulk_slots: int) -> Leases:
    leases = Leases()
    leases.bulk_slots = bulk_slots
    return leases


def test_given_both_lanes_full_then_interactive_goes_first_and_bulk_has_one_turn_in_so_many(
    broker: RedisServer,
) -> None:
    send(broker, *(f"bulk {n}" for n in range(5)), queue=BULK)
    send(broker, *(f"plain {n}" for n in range(30)), queue=PLAIN)
    send(broker, *(f"quick {n}" for n in range(30)), queue=QUICK)
    with connected(broker, OURS, leases=slotted(4)) as connection:
        consumer = Consumer(connection, BULK, PLAIN, QUICK)
        assert consumer.until(lambda: len(consumer.bodies) == 65)
    in_lanes = [f"plain {n}" for n in range(30)] + [f"quick {n}" for n in range(30)]
    expected = [*in_lanes]
    for turn in range(2):
        expected.insert((turn + 1) * INTERACTIVE_IN_A_ROW + turn, f"bulk {turn}")
    # Its third turn comes when the interactive messages are at an end.
    assert consumer.bodies == [*expected, "bulk 2", "bulk 3", "bulk 4"]


def test_given_priorities_of_plain_clients_then_lanes_come_before_them(
    broker: RedisServer,
) -> None:
    send(broker, "bulk", queue=BULK, priority=0)
    send(broker, "quick, of low priority", queue=QUICK, priority=9)
    with connected(broker, OURS, leases=slotted(4)) as connection:
        consumer = Consumer(connection, BULK, QUICK)
        assert consumer.until(lambda: len(consumer.bodies) == 2)
    assert consumer.bodies == ["quick, of low priority", "bulk"]


def test_given_bulk_in_all_its_slots_then_the_rest_waits_in_redis_and_interactive_comes_at_once(
    broker: RedisServer,
) -> None:
    send(broker, *(f"bulk {n}" for n in range(9)), queue=BULK)
    leases = slotted(3)
    with (
        connected(broker, OURS, leases=leases) as connection,
        redis.Redis.from_url(broker.url) as plain,
    ):
        consumer = Consumer(connection, QUICK, BULK, ack=False)
        consumer.channel.basic_qos(0, 8, True)
        consumer.until(lambda: len(consumer.bodies) > 3, 0.5)
        assert consumer.bodies == ["bulk 0", "bulk 1", "bulk 2"]
        assert plain.llen(BULK.name) == 6
        for n in range(6):
            send(broker, f"quick {n}", queue=QUICK)
        consumer.until(lambda: len(consumer.bodies) > 8, 0.5)
        assert consumer.bodies[3:] == [f"quick {n}" for n in range(5)], "eight are the most"
        consumer.messages.pop(0).ack()
        assert consumer.until(lambda: len(consumer.bodies) == 9)
        assert consumer.bodies[8] == "quick 5", "a free place is not bulk's while interactive waits"
        consumer.messages.pop(-1).ack()
        assert consumer.until(lambda: len(consumer.bodies) == 10)
        assert consumer.bodies[9] == "bulk 3"
        assert leases.bulk_held() == 3


@pytest.mark.parametrize("how", ["ack", "requeue", "reject", "forgotten"])
def test_given_bulk_in_all_its_slots_however_one_ends_then_the_slot_is_free(
    broker: RedisServer, how: str
) -> None:
    send(broker, "bulk 0", "bulk 1", queue=BULK)
    leases = slotted(1)
    with connected(broker, OURS, leases=leases) as connection:
        consumer = Consumer(connection, QUICK, BULK, ack=False)
        assert consumer.until(lambda: bool(consumer.messages))
        assert leases.bulk_held() == 1
        message = consumer.messages.pop()
        match how:
            case "ack":
                message.ack()
            case "requeue":
                message.requeue()
            case "reject":
                message.reject()
            case "forgotten":
                del message
                leases.renew()
        assert consumer.until(lambda: len(consumer.bodies) >= 2)
        assert leases.bulk_held() == 1


class Loop:
    """An event loop that takes messages, in a thread, as Celery's does."""

    def __init__(self, connection: Any) -> None:
        self._hub = Hub()
        self._over = False
        connection.transport.register_with_event_loop(connection.connection, self._hub)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            self._hub.run_once()

    def close(self) -> None:
        self._over = True
        self._thread.join(5)
        self._hub.close()


def test_given_a_worker_that_listens_when_a_slot_or_a_place_is_free_then_the_next_comes_at_once(
    broker: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when a timer fires: kombu's loop would look only then."""
    monkeypatch.setattr("worker.transport.POLL_S", 5.0)
    leases = slotted(1)
    send(broker, *(f"bulk {n}" for n in range(21)), queue=BULK)
    with connected(broker, OURS, leases=leases, unacked_restore_interval=5) as connection:
        consumer = Consumer(connection, QUICK, BULK, ack=False)
        consumer.channel.basic_qos(0, 2, True)
        loop = Loop(connection)
        try:
            waits_s = [acked_until_next(consumer) for _ in range(20)]
            send(broker, *(f"quick {n}" for n in range(21)), queue=QUICK)
            waits_s += [acked_until_next(consumer) for _ in range(20)]
        finally:
            loop.close()
    assert len(consumer.bodies) >= 41
    assert sorted(waits_s)[20] < 0.05, waits_s
    assert max(waits_s) < 1, waits_s


def acked_until_next(consumer: Consumer) -> float:
    """Acknowledge from this thread; seconds until the loop's thread has the next message."""
    deadline_s = time.monotonic() + 20
    while not consumer.messages:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    time.sleep(0.02)  # the loop listens again
    before, began_s = len(consumer.bodies), time.monotonic()
    consumer.messages.pop(0).ack()
    while len(consumer.bodies) == before:
        assert time.monotonic() < deadline_s
        time.sleep(0.0005)
    return time.monotonic() - began_s
