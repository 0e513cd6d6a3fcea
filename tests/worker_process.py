"""A real worker process, as an operator would start it."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fork_server import fork_server

READY_TIMEOUT_S = 90
IMPORTED = ("worker.house", "worker.blip.engine", "celery.bin.celery", "kombu.transport.redis")
"""What each worker imports before it reads a setting."""


class WorkerProcess:
    """`celery -A worker.app worker -P threads` with these settings; its log is a file.

    Without mingle, a second in which workers tell each other what was revoked. Waits until it takes
    work, unless `ready` is False. Leaving the block ends the process.
    """

    def __init__(
        self,
        log: Path,
        environment: dict[str, str],
        ready: bool = True,
        name: str = "test",
        pool: str = "threads",
    ) -> None:
        self._log = log
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONQ_")}
        models = {"CAPTIONQ_CAPTION_MODEL": "bundled", "CAPTIONQ_MATCH_MODEL": "bundled"}
        command = ["celery", "-A", "worker.app", "worker", "-P", pool, "--without-mingle"]
        with log.open("wb") as out:
            self.process = fork_server(*IMPORTED).start(
                *command, "-n", f"{name}@localhost", "--loglevel", "INFO",
                env=clean | models | {"OMP_NUM_THREADS": "1"} | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        if ready:
            try:
                self.wait_for_log(f"{name}@localhost ready.", READY_TIMEOUT_S)
            except BaseException:
                self.stop()
                raise

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_log(self, text: str, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self.log:
            if self.process.poll() is not None:
                raise RuntimeError(f"the worker ended ({self.process.returncode}):\n{self.log}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no {text!r} within {timeout_s} s:\n{self.log}")
            time.sleep(0.05)

    def terminate(self) -> None:
        """Ask for a warm shutdown, and return at once."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = 60) -> int:
        """End the process; returns its status."""
        if self.process.poll() is None:
            self.terminate()
            try:
                return self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
