"""The world that is shaken: two Redis servers, images, a receiver, workers behind proxies."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from producer.embedded import RedisServer
from tests.chaos.fates import CALLBACKS, Kind, Source
from tests.chaos.hooks import SECRET, Hooks
from tests.chaos.ledger import Ledger
from tests.chaos.power import Tail
from tests.chaos.proxy import Proxy
from tests.fork_server import ForkedProcess, fork_server
from tests.house import PNG
from tests.servers import Reply, ScriptedHttp, Seen
from worker.embedded_s3 import S3Server

IMPORTED = ("tests.chaos.absent", "worker.house", "celery.bin.celery", "kombu.transport.redis")
"""What workers import before they read a setting."""

STAGES_S = {"FETCH_TIMEOUT": 5, "DECODE_TIMEOUT": 2, "INFER_TIMEOUT": 10, "STORE_PATIENCE": 10}
"""Deadlines of the workers, short, so that what hangs is seen to."""


class Images(ScriptedHttp):
    """Answers any path with an image; those under /busy/ with 503 first."""

    def reply_to(self, request: Seen) -> Reply:
        if not request.path.startswith("/busy/"):
            return Reply(200, PNG)
        self.routes[request.path] = [Reply(503), Reply(200, PNG)]
        reply = super().reply_to(request)
        if reply.status == 200:
            del self.routes[request.path]
        return reply


class Worker:
    """One worker process after another, under one name; its log is one file."""

    def __init__(self, name: str, command: list[str], folder: Path, port: int) -> None:
        self.name = name
        self.proxy = Proxy(port)
        self._command = command
        self._log = (folder / f"{name}.log").open("ab")
        self.environment: dict[str, str] = {}
        self.process: ForkedProcess | None = None
        self.started_s = 0.0
        self.born: dict[int, float] = {}
        """When each began (CLOCK_MONOTONIC), by pid."""
        self.ended: list[tuple[int, int]] = []
        """(pid, status) of all that ended."""

    @property
    def pid(self) -> int:
        """The process there is."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """A fresh process; the one before has ended."""
        self.started_s = time.monotonic()
        newer = "CHAOS_NEWER" in self.environment  # it makes the contract anew, as it imports it
        self.process = fork_server(*(() if newer else IMPORTED)).start(
            *("celery", "-A", "tests.chaos.app", "worker", *self._command),
            env=os.environ | self.environment,
            stdout=self._log,
            stderr=self._log,
        )
        self.born[self.process.pid] = self.started_s

    def signal(self, sig: signal.Signals, pid: int) -> None:
        """Send a signal to the process, if it is still this one."""
        process = self.process
        if process is not None and process.pid == pid:
            process.send_signal(sig)

    def look_after(self) -> None:
        """Note the end of the process, and start the next one."""
        status = self.process.poll() if self.process is not None else None
        if self.process is not None and status is not None:
            self.ended.append((self.process.pid, status))
        if self.process is None or status is not None:
            self.start()

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.proxy.close()
        self._log.close()


def wait(workers: Sequence[Worker], done: Callable[[], bool], timeout_s: float = 300) -> None:
    """Return once `done()` is.

    Raises:
        RuntimeError: a worker has ended meanwhile, so that it never would be, or it takes too long.
    """
    until_s = time.monotonic() + timeout_s
    while not done():
        for worker in workers:
            if worker.process is not None and (status := worker.process.poll()) is not None:
                raise RuntimeError(f"{worker.name} has ended with status {status}")
        if time.monotonic() > until_s:
            raise RuntimeError(f"still not done after {timeout_s:g} s")
        time.sleep(0.005)


class World:
    """Everything there is, in `folder`.

    Args:
        workers: how many worker processes.
        fsync: Redis' `appendfsync`.
        visibility_s: the workers' visibility timeout.
        settings: further environment variables of the workers.
        newer: whether the last worker knows the next version of the contract.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        fsync: str,
        visibility_s: float,
        settings: dict[str, str] | None = None,
        newer: bool = False,
        threads: int = 8,
    ) -> None:
        self._stack = ExitStack()
        enter = self._stack.enter_context
        files, bucket = folder / "files", folder / "s3" / "photos"
        for made in (files, bucket):
            made.mkdir(parents=True)
        (files / "a.png").write_bytes(PNG)
        (files / "stuck.png").write_bytes(PNG + b"stuck")
        (bucket / "a.png").write_bytes(PNG)
        self.redis = enter(RedisServer(folder / "redis", appendfsync=fsync))
        self.tail = Tail(folder / "redis")
        self._stack.callback(self.tail.close)
        book = enter(RedisServer(folder / "ledger", appendfsync="no", save='""'))
        self.ledger = Ledger(book.url)
        self._stack.callback(self.ledger.close)
        self.images = enter(Images())
        self.hooks = enter(Hooks())
        s3 = enter(S3Server(folder / "s3"))
        self.s3 = Proxy(int(urlsplit(s3.endpoint_url).port or 0))
        self._stack.callback(self.s3.close)
        self.places = {
            Source.FILE: f"file://{files}/a.png",
            Source.HTTP: self.images.url("/a.png"),
            Source.S3: "s3://photos/a.png",
            Kind.BUSY: self.images.url("/busy/{job_id}.png"),
            Kind.MISSING: f"file://{files}/none-{{job_id}}.png",
            Kind.STUCK_DECODE: f"file://{files}/stuck.png",
            CALLBACKS: self.hooks.url("/"),
        }
        self.workers: list[Worker] = []
        for n in range(workers):
            name = f"chaos{n}"
            command = ["-P", "threads", "-c", str(threads), "-n", f"{name}@localhost", "-l", "INFO"]
            if workers == 1:
                command.append("--without-mingle")  # a second in which neighbours may answer
            worker = Worker(name, command, folder, int(urlsplit(self.redis.url).port or 0))
            self._stack.callback(worker.close)
            url = urlsplit(self.redis.url)
            broker = f"redis://:{url.password}@127.0.0.1:{worker.proxy.port}/0"
            worker.environment = {
                "CAPTIONQ_BROKER_URL": broker,
                "CAPTIONQ_CAPTION_MODEL": "bundled",
                "CAPTIONQ_MATCH_MODEL": "none",
                "CAPTIONQ_MAX_BATCH": "8",
                "CAPTIONQ_FILE_ROOT": str(files),
                "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{self.images.port}",
                "CAPTIONQ_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.s3.port}",
                "CAPTIONQ_VISIBILITY_TIMEOUT_S": str(visibility_s),
                "CAPTIONQ_BATCH_TIMEOUT_S": "3",
                "CAPTIONQ_SHUTDOWN_TIMEOUT_S": "30",
                "CAPTIONQ_CALLBACK_SECRETS": f"default:{SECRET}",
                "CAPTIONQ_CALLBACK_ALLOW": f"127.0.0.1/32:{self.hooks.port}",
                "CAPTIONQ_CALLBACK_HTTP": "1",
                "CAPTIONQ_CALLBACK_TIMEOUT_S": "2",
                "CAPTIONQ_CALLBACK_SCALE": "0.002",
                "AWS_ACCESS_KEY_ID": s3.access_key,
                "AWS_SECRET_ACCESS_KEY": s3.secret_key,
                "AWS_DEFAULT_REGION": "us-east-1",
                "CHAOS_NAME": name,
                "CHAOS_LEDGER_URL": book.url,
                "PYTHONWARNINGS": "ignore",
                "OMP_NUM_THREADS": "1",
                **{f"CAPTIONQ_{stage}_S": str(s) for stage, s in STAGES_S.items()},
                **({"CHAOS_NEWER": "1"} if newer and n == workers - 1 else {}),
                **(settings or {}),
            }
            self.workers.append(worker)

    def start(self) -> None:
        """Start the workers; that they take up their work is not waited for."""
        for worker in self.workers:
            worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
