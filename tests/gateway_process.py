"""A real gateway process, as an operator would start it, and what the tests of it need."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from producer.contract import Job, JobResult, utcnow
from producer.gateway import keys
from producer.gateway.keys import KeyEntry, Scope
from producer.presence import WorkerFacts
from producer.redis_store import RedisStore
from tests.fork_server import ForkedProcess, fork_server
from tests.stand_in_worker import StandInWorker, succeeded

IMAGE = "https://example.com/cat.jpg"
IMPORTED = ("producer.cli", "producer.gateway.app", "producer.gateway.server", "uvloop")
JOB: dict[str, Any] = {"task": "caption", "image": IMAGE}


class GatewayProcess:
    """`captionq serve` on a free port, with these settings by their variables; its log is a file.

    `url` is where it serves. Leaving the block ends it. `fresh`: in an interpreter of its own, with
    all of its memory.
    """

    def __init__(
        self, broker_url: str, log: Path, *words: str, fresh: bool = False, **settings: str
    ) -> None:
        self.log = log
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONQ_")}
        environment = clean | {"CAPTIONQ_BROKER_URL": broker_url} | settings
        command = ["producer.cli", "serve", "--port", "0", *words]
        self.process: ForkedProcess | subprocess.Popen[str]
        with log.open("wb") as out:
            if fresh:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", *command],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=out,
                    text=True,
                )
            else:
                self.process = fork_server(*IMPORTED).start(
                    *command, env=environment, stdout=subprocess.PIPE, stderr=out
                )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http://" not in line:
            self.stop()
            raise RuntimeError(f"the gateway did not start:\n{log.read_text()}")
        self.url = line.split()[-1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **more)

    def stop(self, timeout_s: float = 20) -> int:
        """End the process; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def new_key(path: Path, name: str, *scopes: Scope, rate: float = 1_000.0) -> tuple[str, KeyEntry]:
    """A key that the file at `path` knows besides those there, and its entry."""
    key, entry = keys.new_key(name, scopes or ("submit", "read", "upload"), rate)
    known = keys.read(path).entries if path.exists() else ()
    keys.write(path, [*known, entry])
    return key, entry


@contextmanager
def worker(url: str, end: Callable[[Job], JobResult] = succeeded) -> Iterator[None]:
    """A stand-in worker that lives, as the store has it."""
    facts = WorkerFacts(
        name="stand-in@test",
        pid=1,
        started_at=utcnow(),
        models={"caption": "bundled", "match": "bundled"},
        languages=("de", "en"),
    )
    store = RedisStore(url)
    store.present(facts, 3_600)
    try:
        with StandInWorker(url, end):
            yield
    finally:
        store.absent(facts.name)
        store.close()


class Held:
    """Ends jobs only once they are let go: `StandInWorker(url, held)`."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, job: Job) -> JobResult:
        assert self.go.wait(30)
        return succeeded(job)
