"""Names on the broker: tasks, lanes, queues, routing. Each is spelled here and nowhere else."""

import re
from collections.abc import Iterable
from typing import Literal

TASK_NAMES = {
    "caption": "captionq.caption",
    "match": "captionq.match",
    "caption_chunk": "captionq.caption_chunk",
    "match_chunk": "captionq.match_chunk",
}
"""Celery task name of each kind of job."""

_MODEL_TASKS = {"caption_chunk": "caption", "match_chunk": "match"}
CHUNK_TASKS = frozenset(_MODEL_TASKS)
"""Kinds of jobs of many images."""

DEFAULT_QUEUE = "celery"
"""Where Celery clients that know nothing of captionq send; every worker takes from it too. It is
of the interactive lane."""

Lane = Literal["interactive", "bulk"]
"""Interactive jobs overtake bulk ones; bulk takes what room is left."""

INTERACTIVE: Lane = "interactive"
BULK: Lane = "bulk"

_BULK_END = ".bulk"


def model_task(task: str) -> str:
    """The task of the models that carry a job out: of a chunk, that of its images."""
    return _MODEL_TASKS.get(task, task)


def queue_for(task: str, model: str | None = None, lane: Lane = INTERACTIVE) -> str:
    """The queue of a task's lane, or of a task's lane for one model alone. Chunks go where their
    images would.

    >>> queue_for("caption"), queue_for("caption", "Salesforce/blip-image-captioning-base")
    ('captionq.caption', 'captionq.caption.Salesforce-blip-image-captioning-base')
    >>> queue_for("caption", lane="bulk"), queue_for("caption", "org/blip", "bulk")
    ('captionq.caption.bulk', 'captionq.caption.org-blip.bulk')
    """
    name = TASK_NAMES[model_task(task)]
    if model:
        name = f"{name}.{re.sub(r'[^A-Za-z0-9._]+', '-', model).strip('-')}"
        if is_bulk(name):  # of a model that is called so
            name += "-"
    return name + _BULK_END if lane == BULK else name


def is_bulk(queue: str) -> bool:
    """Whether a queue is of the bulk lane; any that is not ours is of the interactive one."""
    return queue.endswith(_BULK_END)


def queues_served(models: Iterable[tuple[str, str]]) -> list[str]:
    """The queues a worker subscribes to, given (task, model id) of what it has loaded: those of
    the interactive lane, then those of the bulk one."""
    served = [(task, of) for task, model in models for of in (None, model)]
    bulk = [queue_for(task, model, BULK) for task, model in served]
    return [DEFAULT_QUEUE, *(queue_for(task, model) for task, model in served), *bulk]
