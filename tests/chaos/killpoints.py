"""Points between two steps of a job's way at which a worker process can kill itself.

Each is the moment before or after a method's call. `arm` wraps that method.
"""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from celery import Task

from producer.redis_store import RedisStore
from worker import channel, qos
from worker.callbacks.courier import Courier
from worker.callbacks.outbox import Outbox
from worker.leases import Leases
from worker.pipeline import Pipeline


class Step(NamedTuple):
    """A step: the method that takes it, and whether a call of it counts as one."""

    owner: type
    method: str
    counts: Callable[..., bool] = lambda *_, **__: True


STEPS = {
    "take": Step(channel.Channel, "_brpop_start"),  # after it: sent, and nothing read
    "deliver": Step(channel.Channel, "_deliver"),  # before it: taken, and not known to Celery
    "hold": Step(qos.QoS, "append"),
    "count": Step(RedisStore, "start"),
    "run": Step(Pipeline, "run"),
    "publish": Step(RedisStore, "finish"),
    "retry": Step(Task, "retry"),
    "ack": Step(Leases, "release"),
    "tell": Step(Courier, "deliver"),  # before it: claimed, and nothing sent
    "told": Step(Outbox, "settle"),  # before it: sent, and nothing noted
    "flush": Step(Leases, "flush", lambda self, *_: bool(self._done)),  # after it: Redis knows
}
"""The steps of one delivery and of one callback in their order."""

POINTS = [f"{step}:{side}" for step in STEPS for side in ("before", "after")]


def arm(plan: Path) -> None:
    """Let this process kill itself at the point of POINTS that `plan` names, when it passes it for
    the n-th time since: `POINT N`, or nothing as long as there is no such file."""
    for name in STEPS:
        _watch(name, _Fuse(plan))


class _Fuse:
    """The kill that is planned for one step; safe to share between threads."""

    def __init__(self, plan: Path) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._read = ""
        self._left = 0

    def passed(self, point: str) -> None:
        with self._lock:
            words = self._plan.read_text() if self._plan.exists() else ""
            if words != self._read:
                self._read, self._left = words, int(words.split()[1]) if words else 0
            if not words.startswith(f"{point} "):
                return
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _watch(name: str, fuse: _Fuse) -> None:
    step = STEPS[name]
    original = getattr(step.owner, step.method)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        counts = step.counts(*args, **kwargs)
        if counts:
            fuse.passed(f"{name}:before")
        answer = original(*args, **kwargs)
        if counts:
            fuse.passed(f"{name}:after")
        return answer

    setattr(step.owner, step.method, wrapped)
