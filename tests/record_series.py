"""python -m tests.record_series [NAME ...]: what workers tell Prometheus, healthy and under faults.

Writes tests/recorded/NAME.json, one to four minutes for each, of the series that rules name;
tests/unit/test_alerts.py holds the rules against them. Workers, and what befalls them, are those of
`make chaos` (tests/chaos): each of its faults and kinds of jobs has a recording, by its name. A
sample is taken every 4 s and stands for 15 s there, the interval of
docker/prometheus/prometheus.yml: a fault need not last for minutes. Counters that stay at 0 are
left out.
"""

import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import redis
from celery import Celery

from producer import Client
from producer.errors import BrokerUnavailable
from producer.settings import ProducerSettings
from tests.chaos.fates import Errand, Fate, Kind, Sender, Source
from tests.chaos.faults import ACTS, CLOCK_JUMP, HOOKS_DOWN, POWER_CUT, S3_DOWN
from tests.chaos.world import Worker, World, wait
from tests.series import Series, recorded
from worker.bench.processes import free_port

FOLDER = Path(__file__).parent / "recorded"
RULES = Path(__file__).parents[1] / "docker/prometheus/alerts.yml"
EVERY_S = 4.0
FAULT_AT_S = 2.5 * EVERY_S
VISIBILITY_S = 4.0

Act = Callable[[World, "Jobs"], object]


class Jobs:
    """Sends jobs to a world, while there is one that takes them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = count()
        self._client = Client(world.redis.url, settings=ProducerSettings(submit_timeout_s=2))

    def send(self, kind: Kind = Kind.NORMAL, source: Source = Source.FILE, times: int = 1) -> None:
        """So many, which work for a second each, with callbacks. NEWER ones plain clients send."""
        for _ in range(times):
            number = next(self._numbers)
            fate = Fate(kind, work_ms=1_000, limit=1, number=number)
            one = Errand(f"{number}-{kind}", fate, source, Sender.CLIENT, callback=True)
            job = one.job(self._world.places)
            if kind is Kind.NEWER:
                with Celery(broker=self._world.redis.url, set_as_current=False) as celery:
                    body = job.model_dump(mode="json") | {"schema_version": 2}
                    celery.send_task("captionq.caption", kwargs={"job": body}, task_id=one.job_id)
                continue
            try:
                self._client.submit(job)
            except BrokerUnavailable as exc:
                print(f"  not submitted: {type(exc).__name__}", file=sys.stderr)

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True)
class Scene:
    """What is recorded.

    Args:
        act: happens at FAULT_AT_S.
        samples: how many are taken.
        settings: of the workers.
        every_s: between the jobs that are sent all the while; 0: none are.
        source: of every other one of these.
        restarts: whether workers that end are started again.
        fsync: Redis' `appendfsync`.
    """

    act: Act
    samples: int = 14
    settings: Mapping[str, str] = field(default_factory=dict)
    every_s: float = 0.4
    source: Source = Source.FILE
    restarts: bool = False
    fsync: str = "always"


def befalls(name: str, length_s: float) -> Act:
    """A fault of the survival suite, of that length as it counts them, to the second worker."""
    act, _ = ACTS[name]
    return lambda world, _: act(world, world.workers[1], length_s)


def come(kind: Kind, times: int, every_s: float = 0) -> Act:
    """Jobs of a kind: so many at a time, once or every so many seconds."""

    def act(_: World, jobs: Jobs) -> None:
        end_s = time.monotonic() + 600 if every_s else 0
        while True:
            jobs.send(kind, times=times)
            if time.monotonic() > end_s:
                return
            time.sleep(every_s)

    return act


def malformed(world: World, _: Jobs) -> None:
    """Entries of a queue that are no messages."""
    with redis.Redis.from_url(world.redis.url) as client:
        client.lpush("captionq.caption", "{", "no message", "[]")


def restarted(world: World, _: Jobs) -> None:
    """A worker is told to end, and started again, as in an upgrade."""
    worker = world.workers[1]
    worker.signal(signal.SIGTERM, worker.pid)


SOON = {"CAPTIONQ_CALLBACK_SCALE": "0.000001"}
AS_DELIVERED = {
    "CAPTIONQ_BATCH_TIMEOUT_S": "60",
    "CAPTIONQ_INFER_TIMEOUT_S": "90",
    "CAPTIONQ_SHUTDOWN_TIMEOUT_S": "160",
}

HEALTHY: dict[str, Scene] = {
    "healthy": Scene(lambda *_: None, samples=60),
    "idle": Scene(lambda *_: None, samples=60, every_s=0),
    "restarted": Scene(restarted, samples=30, restarts=True),
}
"""On these no alert may fire."""

FAULTS: dict[str, Scene] = {
    "kill -9 of a worker": Scene(befalls("kill -9 of a worker", 0), restarts=True),
    "SIGTERM of a worker": Scene(befalls("SIGTERM of a worker", 0), samples=30),
    "SIGTERM, twice": Scene(befalls("SIGTERM, twice", 0), samples=30),
    "SIGSTOP of a worker": Scene(befalls("SIGSTOP of a worker", 12)),
    "kill -9 of Redis": Scene(befalls("kill -9 of Redis", 8)),
    POWER_CUT: Scene(befalls(POWER_CUT, 8), fsync="everysec"),
    "restart of Redis": Scene(befalls("restart of Redis", 8)),
    "SIGSTOP of Redis": Scene(befalls("SIGSTOP of Redis", 60), samples=16),
    "connection cut": Scene(befalls("connection cut", 0)),
    "connection frozen": Scene(befalls("connection frozen", 28), samples=16),
    "connection refused": Scene(befalls("connection refused", 16)),
    S3_DOWN: Scene(befalls(S3_DOWN, 160), source=Source.S3, samples=20),
    HOOKS_DOWN: Scene(befalls(HOOKS_DOWN, 400), samples=28),
    "Redis full": Scene(befalls("Redis full", 160), samples=16),
    CLOCK_JUMP: Scene(befalls(CLOCK_JUMP, 60), samples=16),
    Kind.BUSY: Scene(come(Kind.BUSY, 1, 0.4), samples=22),
    Kind.MISSING: Scene(come(Kind.MISSING, 1, 0.4), samples=32),
    Kind.POISON: Scene(come(Kind.POISON, 1), restarts=True, samples=24),
    Kind.GREEDY: Scene(come(Kind.GREEDY, 20)),
    Kind.STUCK_DECODE: Scene(come(Kind.STUCK_DECODE, 5)),
    Kind.STUCK_DEVICE: Scene(come(Kind.STUCK_DEVICE, 1), settings=AS_DELIVERED, restarts=True),
    Kind.NEWER: Scene(come(Kind.NEWER, 1)),
    "callbacks refused": Scene(befalls(HOOKS_DOWN, 400), settings=SOON),
    "forged or malformed messages": Scene(malformed),
}
"""By the names that docs/metrics.md has for them."""


def file_of(name: str) -> Path:
    """Where a recording lies."""
    return FOLDER / f"{name.replace(',', '').replace(' ', '_').replace('-', '').lower()}.json"


@contextmanager
def beside(*loops: Callable[[], object]) -> Iterator[None]:
    """Each of these is done again and again meanwhile."""
    ended = threading.Event()

    def run(again: Callable[[], object]) -> None:
        while not ended.wait(0.1):
            again()

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(15)


def record(scene: Scene) -> Series:
    with (
        tempfile.TemporaryDirectory(prefix="series-") as folder,
        World(
            Path(folder), workers=2, fsync=scene.fsync, visibility_s=VISIBILITY_S,
            settings=dict(scene.settings),
        ) as world,
    ):  # fmt: skip
        targets = {}
        for worker in world.workers:
            port = free_port()
            worker.environment["CAPTIONQ_METRICS_PORT"] = str(port)
            targets[worker.name] = f"http://127.0.0.1:{port}"
        world.start()
        wait(world.workers, lambda: all(" ready." in log(one) for one in world.workers))
        jobs, failed = Jobs(world), []
        numbers = count()

        def send() -> None:
            jobs.send(source=scene.source if next(numbers) % 2 else Source.FILE)
            time.sleep(scene.every_s)

        def act() -> None:
            try:
                scene.act(world, jobs)
            except Exception as exc:
                failed.append(exc)

        def look_after() -> None:
            for worker in world.workers:
                worker.look_after()

        happening = threading.Timer(FAULT_AT_S, act)
        happening.daemon = True
        loops = [send] if scene.every_s else []
        with beside(*loops, *([look_after] if scene.restarts else [])):
            happening.start()
            found = recorded(targets, "captionq-worker", scene.samples, EVERY_S)
        jobs.close()
        if failed:
            raise failed[0]
    rules = RULES.read_text()
    return {
        name: values
        for name, values in found.items()
        if name.partition("{")[0] in rules and not ("_total{" in name and still(values))
    }


def log(worker: Worker) -> str:
    return Path(worker._log.name).read_text(errors="replace")


def still(values: str) -> bool:
    """Whether a counter stays at 0, as far as it is there."""
    return not any(part[0] not in "_0" for part in values.split())


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    scenes = HEALTHY | FAULTS
    for name in sys.argv[1:] or scenes:
        print(name, flush=True)
        text = json.dumps(record(scenes[name]), indent=0, sort_keys=True)
        file_of(name).write_text(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
