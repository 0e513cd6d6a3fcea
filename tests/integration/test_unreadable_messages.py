"""Messages that Celery's protocol allows in, and whose body is not what it must be.

A thread pool drops what is raised before a task begins: such a message would keep its thread's
place, and its lease, for as long as the worker lives.
"""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from producer.embedded import RedisServer

BODIES: dict[str, Any] = {
    "two parts": [[0], {}],
    "four parts": [[0], {}, {}, {}],
    "a text of three letters": "abc",
    "a mapping": {"0": 0},
    "embedded options of another kind": [[0], {}, 5],
    "positional arguments of another kind": [5, {}, None],
    "named arguments of another kind": [[0], [], None],
}


def test_given_bodies_that_are_no_arguments_then_they_are_rejected_and_the_worker_works_on(
    tmp_path: Path,
) -> None:
    with RedisServer(tmp_path / "redis") as broker, redis.Redis.from_url(broker.url) as plain:
        with Celery(broker=broker.url, set_as_current=False) as client:
            client.send_task("sleep", [0], ignore_result=True)
        good = json.loads(plain.rpop("celery") or b"")
        for name, body in BODIES.items():
            encoded = base64.b64encode(json.dumps(body).encode()).decode()
            headers = good["headers"] | {"id": name}
            plain.lpush("celery", json.dumps(good | {"headers": headers, "body": encoded}))
        plain.lpush("celery", json.dumps(good))
        command = [sys.executable, "-m", "celery", "-A", "tests.sleeper", "worker", "-P", "threads"]
        log = tmp_path / "log"
        with log.open("wb") as out:
            worker = subprocess.Popen(
                [*command, "-c", "2"],
                env=os.environ | {"SLEEPER_BROKER": broker.url},
                stdout=out,
                stderr=out,
            )
        try:
            deadline_s = time.monotonic() + 30
            while plain.llen("celery") + plain.hlen("captionq.inflight"):
                if time.monotonic() > deadline_s:
                    held = [
                        json.loads(e.split(b"\n", 1)[1])["headers"]["id"]
                        for e in plain.hvals("captionq.inflight")
                    ]
                    pytest.fail(f"{plain.llen('celery')} wait; in flight for ever: {held}")
                time.sleep(0.05)
            assert worker.poll() is None
        finally:
            worker.terminate()
            worker.wait(30)
        assert log.read_text().count("dropped a message of celery: ") == len(BODIES)
