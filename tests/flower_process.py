"""Flower as an operator starts it: `captionq flower`, with a login."""

import base64
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

LOGIN = "operator:s3cret"
TIMEOUT_S = 60
ENDS_IN_S = 5


@contextmanager
def flower_at(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Its URL, of the broker that `environment` names; its log lies in `folder`. It has to end when
    told with the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / "flower.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "producer.cli", "flower", f"--port={port}"],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment, "FLOWER_BASIC_AUTH": LOGIN},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or get(url, "/healthcheck"))
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.terminate()
        try:
            process.wait(ENDS_IN_S)
        finally:
            process.kill()
            process.wait()


def authorization(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def get(url: str, path: str) -> bytes:
    request = urllib.request.Request(url + path, headers={"Authorization": authorization(LOGIN)})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return bytes(reply.read())


def until(call: Callable[[], Any]) -> Any:
    """Call until it returns something true."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            if found := call():
                return found
        except URLError as exc:
            problem: object = exc
        else:
            problem = found
        assert time.monotonic() < deadline_s, problem
        time.sleep(0.2)
