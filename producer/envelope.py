"""A job's message as Celery and kombu write it to Redis, without them: a tenth of the time.

Only where the broker is the Redis that has the results store, so that a job is recorded and sent in
one step. tests/integration/test_one_step.py holds this to what Celery writes: its task protocol 2
in kombu's Redis envelope, and the event `task-sent` that Flower hears.
"""

import base64
import json
import os
import socket
import time
import uuid
from typing import Any, NamedTuple

from producer.contract import Chunk, Job
from producer.queues import TASK_NAMES, queue_for
from producer.references import images_shown
from producer.wire import IMAGES, RECORDED, TRACEPARENT

_EMBED = b'}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


class Sent(NamedTuple):
    """What is written to Redis for one job: its message, and what is published where of that."""

    message: str
    event_channel: str
    event: str


class Envelopes:
    """Makes messages for the broker's database `db`."""

    def __init__(self, db: int) -> None:
        self._channel = f"/{db}.celeryev/task.sent"
        self._pid = os.getpid()
        self._origin = f"gen{self._pid}@{socket.gethostname()}"
        self._reply_to = str(uuid.uuid4())
        self._clock = 0

    def of(self, job: Job, traceparent: str = "") -> Sent:
        """The message of a job that is prepared (`submission.prepared`); `traceparent` names the
        span that it is sent in, if there is one."""
        queue = queue_for(job.task, job.model, job.lane)
        shown = (
            images_shown({"images": job.images} if isinstance(job, Chunk) else {"image": job.image})
            or ""
        )
        return Sent(
            _enveloped(
                _body(job),
                {
                    "lang": "py",
                    "task": TASK_NAMES[job.task],
                    "id": job.job_id,
                    "shadow": None,
                    "eta": None,
                    "expires": None,
                    "group": None,
                    "group_index": None,
                    "retries": 0,
                    "timelimit": [None, None],
                    "root_id": job.job_id,
                    "parent_id": None,
                    "argsrepr": "()",
                    "kwargsrepr": shown,
                    "origin": self._origin,
                    "ignore_result": True,
                    "replaced_task_nesting": 0,
                    "stamped_headers": None,
                    "stamps": {},
                    **({IMAGES: len(job.images)} if isinstance(job, Chunk) else {}),
                    **({TRACEPARENT: traceparent} if traceparent else {}),
                },
                {
                    "correlation_id": job.job_id,
                    "reply_to": self._reply_to,
                    "kwargsrepr": shown,
                    "delivery_mode": 2,
                    "delivery_info": {"exchange": "", "routing_key": queue},
                },
            ),
            self._channel,
            self._event(job, queue, shown),
        )

    def _event(self, job: Job, queue: str, shown: str) -> str:
        self._clock += 1
        said = {
            "hostname": self._origin,
            "utcoffset": (time.altzone if time.localtime().tm_isdst else time.timezone) / 3_600,
            "pid": self._pid,
            "clock": self._clock,
            "uuid": job.job_id,
            "root_id": job.job_id,
            "parent_id": None,
            "name": TASK_NAMES[job.task],
            "args": "()",
            "kwargs": shown,
            "retries": 0,
            "eta": None,
            "expires": None,
            "queue": queue,
            "exchange": "",
            "routing_key": queue,
            "timestamp": time.time(),
            "type": "task-sent",
        }
        return _enveloped(
            json.dumps(said).encode(),
            {"hostname": self._origin},
            {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "task.sent"},
            },
        )


def _body(job: Job) -> bytes:
    carried = (
        json.dumps({RECORDED: job.job_id}) if isinstance(job, Chunk) else job.model_dump_json()
    )
    return b'[[], {"job": ' + carried.encode() + _EMBED


def _enveloped(body: bytes, headers: dict[str, Any], properties: dict[str, Any]) -> str:
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties
            | {"priority": 0, "body_encoding": "base64", "delivery_tag": str(uuid.uuid4())},
        }
    )
