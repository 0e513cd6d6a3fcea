"""The demo's page: the HTTP gateway beside its worker, for pictures that are dropped on it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

STOP_TIMEOUT_S = 20


@contextmanager
def page(environment: Mapping[str, str], files: Path, log: Path) -> Iterator[str]:
    """Serve the page on 127.0.0.1 and a free port; yields its URL.

    Args:
        environment: of the process, with the broker.
        files: the folder that workers may read; what is uploaded is kept below it.

    Raises:
        SystemExit: it does not start; the text says why.
    """
    uploads = files / "uploads"
    uploads.mkdir()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "producer.cli", "serve", "--port", "0"],
            env={**environment, "CAPTIONQ_UPLOAD_TO": f"{uploads.as_uri()}/"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        url = process.stdout.readline().rpartition(" ")[2].strip()
        if not url.startswith("http://"):
            process.wait(STOP_TIMEOUT_S)
            raise SystemExit(log.read_text(errors="replace").strip())
        yield f"{url}/"
    finally:
        process.terminate()
        process.communicate(timeout=STOP_TIMEOUT_S)


def until_interrupted() -> None:
    """Return at Ctrl-C or SIGTERM."""
    for ends in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # ignored in a shell's background
        signal.signal(ends, signal.default_int_handler)
    try:
        while True:  # not signal.pause(): a signal that another thread is given would not end it
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
