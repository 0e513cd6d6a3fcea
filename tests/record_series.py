"""python -m tests.record_series: what real workers tell Prometheus, in health and under faults.

Writes tests/recorded/NAME.json, about a minute for each, of the series that rules name;
tests/unit/test_alerts.py holds the rules against them. A sample is taken every 4 s and stands for
15 s there, the interval of docker/prometheus/prometheus.yml: a fault need not last for minutes.
"""

import json
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from producer.callback import Callback
from producer.contract import CaptionJob
from tests.house import PNG, House, open_house
from tests.series import recorded
from tests.servers import Reply
from tests.worker_process import WorkerProcess

FOLDER = Path(__file__).parent / "recorded"
RULES = Path(__file__).parents[1] / "docker/prometheus/alerts.yml"
EVERY_S = 4.0
SAMPLES = 12
FAULT_AT_S = 2.5 * EVERY_S

Fault = Callable[[House, list[WorkerProcess]], object]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def killed(house: House, workers: list[WorkerProcess]) -> None:
    """kill -9 of a worker that holds jobs."""
    house.web.routes["/slow.png"] = [Reply(200, PNG, delay_s=3)]
    house.client.submit_many(CaptionJob(image=house.web.url("/slow.png")) for _ in range(60))
    time.sleep(1)
    workers[1].process.send_signal(signal.SIGKILL)


def redis_away(house: House, _: list[WorkerProcess]) -> None:
    """kill -9 of Redis."""
    house.broker.kill()


def redis_frozen(house: House, _: list[WorkerProcess]) -> Callable[[], None]:
    """SIGSTOP of Redis."""
    process = house.broker._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


def redis_full(house: House, _: list[WorkerProcess]) -> None:
    """Redis has no memory left."""
    with redis.Redis.from_url(house.broker.url) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1)


def s3_away(house: House, _: list[WorkerProcess]) -> None:
    """S3 does not answer."""
    house.client.submit_many(CaptionJob(image=f"s3://away/{n}.png") for n in range(4))


def callbacks_refused(house: House, _: list[WorkerProcess]) -> None:
    """Nobody listens where callbacks are sent."""
    hook = Callback(url=f"http://127.0.0.1:{house.hook_port}/told")
    for _ in range(3):
        house.client.submit(CaptionJob(image=house.web.url("/ok.png"), callback=hook))


def malformed(house: House, _: list[WorkerProcess]) -> None:
    """Entries of a queue that are no messages."""
    with redis.Redis.from_url(house.broker.url) as client:
        client.lpush("captionq.caption", "{", "no message", "[]")


FAULTS: dict[str, Fault] = {
    "healthy": lambda *_: None,
    "killed": killed,
    "redis_away": redis_away,
    "redis_frozen": redis_frozen,
    "redis_full": redis_full,
    "s3_away": s3_away,
    "callbacks_refused": callbacks_refused,
    "malformed": malformed,
}

MORE: dict[str, dict[str, str]] = {
    "killed": {"CAPTIONQ_VISIBILITY_TIMEOUT_S": "4"},
    "s3_away": {"CAPTIONQ_S3_ENDPOINT_URL": "http://127.0.0.1:9"},
    "callbacks_refused": {"CAPTIONQ_CALLBACK_SCALE": "0.000001"},
}
"""Settings that let a fault show soon."""


@contextmanager
def working(house: House) -> Iterator[None]:
    """Jobs come in meanwhile, as far as that is possible."""
    ended = threading.Event()

    def submit() -> None:
        hook = Callback(url=house.web.url("/told"))
        while not ended.wait(0.5):
            try:
                house.client.submit(CaptionJob(image=house.web.url("/ok.png"), callback=hook))
            except Exception as exc:
                print(f"  not submitted: {type(exc).__name__}", file=sys.stderr)

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(15)


def record(name: str) -> None:
    ports = [free_port(), free_port()]
    settings = [{"CAPTIONQ_METRICS_PORT": str(port)} | MORE.get(name, {}) for port in ports]
    targets = {f"worker-{n}": f"http://127.0.0.1:{port}" for n, port in enumerate(ports)}
    with tempfile.TemporaryDirectory() as made, open_house(Path(made), **settings[0]) as house:
        second = house.environment | settings[1]
        with WorkerProcess(Path(made) / "second.log", second, name="second") as other:
            undo: list[object] = []
            workers = [house.worker, other]
            timer = threading.Timer(FAULT_AT_S, lambda: undo.append(FAULTS[name](house, workers)))
            with working(house):
                timer.start()

                found = recorded(targets, "captionq-worker", SAMPLES, EVERY_S)
            if not undo:
                raise RuntimeError(f"the fault {name} did not happen")
            for one in undo:
                if callable(one):
                    one()
            for one in workers:
                one.process.kill()
    rules = RULES.read_text()
    named = {one: values for one, values in found.items() if one.partition("{")[0] in rules}
    text = json.dumps(named, indent=0, sort_keys=True)
    (FOLDER / f"{name}.json").write_text(f"{text}\n")


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FAULTS:
        print(name, flush=True)
        record(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
