"""The processes of a measurement: a worker, and what it said it did."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

__all__ = ["Count", "Worker", "free_port"]

READY_S = 600.0
"""A full-size engine warms up before it takes work."""
STALL_S = 120.0
"""Longer than any batch: a worker that did nothing for so long does nothing any more."""


class Count(NamedTuple):
    """What the device thread had done at a moment, seconds since 1970."""

    at_s: float
    batches: int
    images: int
    busy_s: float


class Worker:
    """`celery -A MODULE worker -P threads`, ended with the block.

    Args:
        module: where the Celery app is.
        folder: for its log and its counts.
        environment: settings beside those of this process that are not captionq's.
        options: further words of the command.
    """

    def __init__(
        self,
        module: str,
        folder: Path,
        environment: Mapping[str, str],
        options: tuple[str, ...] = (),
    ) -> None:
        self._log = folder / f"{module}.log"
        self._counts = folder / "counts"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONQ_")}
        command = [sys.executable, "-m", "celery", "-A", module, "worker", "-P", "threads"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [*command, "-n", "bench@localhost", "--loglevel", "INFO", *options],
                env={**kept, "BENCH_COUNTS": str(self._counts), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Raises: RuntimeError, with the end of its log, when it does not come up."""
        end_s = time.monotonic() + READY_S
        while "bench@localhost ready." not in (log := self._log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"the worker does not come up:\n{log[-2_000:]}")
            time.sleep(0.05)

    def wait_until_done(self, images: int) -> list[Count]:
        """What it did, once so many images are done.

        Raises: RuntimeError, with the end of its log, when it ends or does nothing any more.
        """
        done, since_s = 0, time.monotonic()
        while not (counts := self.counts()) or counts[-1].images < images:
            if counts and counts[-1].images > done:
                done, since_s = counts[-1].images, time.monotonic()
            if self._process.poll() is not None or time.monotonic() > since_s + STALL_S:
                log = self._log.read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"the worker does no more than {done} of {images}:\n{log}")
            time.sleep(0.05)
        return counts

    def counts(self) -> list[Count]:
        """What it did so far, a tenth of a second apart."""
        lines = self._counts.read_text().splitlines() if self._counts.exists() else []
        return [Count(*json.loads(line)) for line in lines if line.endswith("]")]

    def settled(self) -> Count:
        """What it has done until now: the next that it says."""
        now_s = time.time()
        while (said := self.counts()[-1]).at_s <= now_s:
            time.sleep(0.02)
        return said

    def mebibytes(self) -> float:
        """Resident memory of the process, without its decoders; 0 where there is no /proc."""
        status = Path(f"/proc/{self._process.pid}/status")
        if not status.exists():
            return 0.0
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def cores_s(self) -> tuple[float, float]:
        """Seconds of processor time used so far: by the process itself, and by its decoders; zeros
        where there is no /proc."""
        used: dict[int, tuple[int, float]] = {}  # pid: (parent, seconds)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, ValueError):
                fields = stat.read_text().rpartition(")")[2].split()  # proc(5), from the third on
                ticks = int(fields[11]) + int(fields[12])
                used[int(stat.parent.name)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
        below, found = {self._process.pid}, 0.0
        while more := {pid for pid, (parent, _) in used.items() if parent in below} - below:
            below |= more
            found += sum(used[pid][1] for pid in more)
        return used.get(self._process.pid, (0, 0.0))[1], found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def ready(worker: Worker) -> Iterator[Worker]:
    """The worker once it takes work."""
    with worker:
        worker.wait_until_ready()
        yield worker


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
