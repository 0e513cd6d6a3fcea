"""What the transport costs: messages that do nothing, through it and through kombu's own."""

import statistics
import tempfile
import time
from pathlib import Path

import redis
from celery import Celery

from tests.chaos.world import World, wait

TRANSPORTS = ("stock", "ours")


def main(rounds: int, messages: int) -> int:
    """Alternate both transports; print messages per second of each, medians, and their ratio.

    Promised: at least 0.9.
    """
    rates: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    for number in range(rounds):
        for name in TRANSPORTS if number % 2 else reversed(TRANSPORTS):
            rates[name].append(_rate(name, messages))
            print(f"{name:>6}: {rates[name][-1]:.0f} messages/s", flush=True)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratio = medians["ours"] / medians["stock"]
    print(
        f"median of {rounds}: stock {medians['stock']:.0f}, ours {medians['ours']:.0f} messages/s; "
        f"ratio {ratio:.2f}"
    )
    return int(ratio < 0.9)


def _rate(transport: str, messages: int) -> float:
    settings = {"CHAOS_TRANSPORT": transport, "CHAOS_LEDGER_URL": ""}
    settings["CAPTIONQ_RECONCILE_EVERY_S"] = "0"
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        World(
            Path(folder),
            workers=1,
            fsync="everysec",
            visibility_s=20,
            settings=settings,
            threads=32,
        ) as world,
        redis.Redis.from_url(world.redis.url) as client,
        Celery(broker=world.redis.url, backend="disabled://", set_as_current=False) as app,
    ):
        with app.connection_for_write() as connection, connection.Producer() as producer:
            for _ in range(messages // 500):
                with producer.batch():  # type: ignore[attr-defined] # newer than its stubs
                    for _ in range(500):
                        app.send_task("chaos.noop", producer=producer, ignore_result=True)
        total = int(client.llen("celery"))
        world.workers[0].environment["CAPTIONQ_BROKER_URL"] = world.redis.url  # no proxy between
        world.start()

        def left() -> int:
            return int(client.llen("celery"))

        wait(world.workers, lambda: left() <= total * 0.9)
        began_s, first = time.perf_counter(), left()
        wait(world.workers, lambda: left() <= total * 0.1)
        return (first - left()) / (time.perf_counter() - began_s)
