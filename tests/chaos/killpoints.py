"""Points between two steps of a job's way at which a worker process can kill itself.

Each is the moment before or after a method's call. `arm` wraps that method.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from celery import Task

from producer.redis_store import RedisStore
from worker import channel, qos
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
    "flush": Step(Leases, "flush", lambda self, *_: bool(self._done)),  # after it: Redis knows
}
"""The steps of one delivery in their order."""

POINTS = [f"{step}:{side}" for step in STEPS for side in ("before", "after")]


def arm(point: str, nth: int) -> None:
    """Let this process kill itself when it passes a point of POINTS for the n-th time.

    Raises:
        ValueError: there is no such point.
    """
    name, _, side = point.partition(":")
    if point not in POINTS:
        raise ValueError(f"{point} is none of {', '.join(POINTS)}")
    step = STEPS[name]
    original = getattr(step.owner, step.method)
    lock, left = threading.Lock(), [nth]

    def passed() -> None:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        counts = step.counts(*args, **kwargs)
        if counts and side == "before":
            passed()
        answer = original(*args, **kwargs)
        if counts and side == "after":
            passed()
        return answer

    setattr(step.owner, step.method, wrapped)
