"""What an operator sees in Flower: real jobs of a real worker, read from Flower's API."""

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from producer import CaptionJob
from tests.house import House

USER_PASSWORD = "operator:s3cret"
TIMEOUT_S = 60


@pytest.fixture
def flower(house: House, tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (tmp_path / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-b", house.broker.url, "flower"),
                *("--address=127.0.0.1", f"--port={port}", f"--basic-auth={USER_PASSWORD}"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: get(url, "/healthcheck", json_=False))
        yield url
    finally:
        process.terminate()
        process.wait(20)


def get(url: str, path: str, json_: bool = True) -> Any:
    token = base64.b64encode(USER_PASSWORD.encode()).decode()
    request = urllib.request.Request(url + path, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        body = reply.read()
    return json.loads(body) if json_ else body


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


def test_given_a_succeeded_and_a_failed_job_flower_shows_both_and_the_code(
    house: House, flower: str
) -> None:
    until(lambda: get(flower, "/api/workers?refresh=1"))
    good = house.client.submit(CaptionJob(image=house.web.url("/ok.png")))
    bad = house.client.submit(CaptionJob(image=house.web.url("/missing.png")))
    good.result(TIMEOUT_S)
    bad.result(TIMEOUT_S)

    def ended() -> dict[str, Any] | None:
        tasks = get(flower, "/api/tasks")
        states = {tasks.get(handle.job_id, {}).get("state") for handle in (good, bad)}
        return tasks if states == {"SUCCESS", "FAILURE"} else None

    tasks = until(ended)
    assert tasks[good.job_id]["name"] == "captionq.caption"
    assert "captions" in tasks[good.job_id]["result"]
    assert "http_4xx" in tasks[bad.job_id]["exception"]
