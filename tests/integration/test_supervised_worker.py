"""`captionq-worker run`, with real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from producer.embedded import RedisServer

STARTED = re.compile(r"cpu: started as process (\d+)")


def started(log: Path, times: int, timeout_s: float = 60) -> list[int]:
    """Process ids of the worker, once it has been started this often."""
    deadline_s = time.monotonic() + timeout_s
    while len(pids := [int(pid) for pid in STARTED.findall(log.read_text())]) < times:
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.05)
    return pids


@contextmanager
def supervised(folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """`captionq-worker run --devices cpu` and its log."""
    log = folder / "run.log"
    with RedisServer(folder / "redis") as broker, log.open("wb") as out:
        settings = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_CAPTION_MODEL": "bundled",
            "CAPTIONQ_MATCH_MODEL": "none",
            "PYTHONWARNINGS": "ignore",  # Celery warns of root
        }
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", "run", "--devices", "cpu"],
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,  # Celery says there that it shuts down
            stderr=out,
        )
        try:
            yield supervisor, log
        finally:
            supervisor.kill()
            supervisor.wait()


def is_object(line: str) -> bool:
    """Whether a line of a log is one JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def gone(pid: int, timeout_s: float = 30) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while psutil.pid_exists(pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


def test_given_a_killed_process_another_is_started_and_a_killed_supervisor_ends_it(
    tmp_path: Path,
) -> None:
    with supervised(tmp_path) as (supervisor, log):
        (first,) = started(log, times=1)
        os.kill(first, signal.SIGKILL)
        _, second = started(log, times=2)
        assert second != first
        assert "ended with status -9" in log.read_text()
        deadline_s = time.monotonic() + 60
        while " ready." not in log.read_text():
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        supervisor.kill()
        assert gone(second)
        lines = log.read_text().splitlines()
        assert [line for line in lines if not is_object(line)] == []
