"""Names on the broker: tasks, lanes, queues, routing. Each is spelled here and nowhere else."""

import re
from collections.abc import Iterable
from typing import Literal

_MODEL_TASKS = {
    "caption": "caption",
    "match": "match",
    "embed": "match",
    "rank": "match",
    "explain": "caption",
    "caption_chunk": "caption",
    "match_chunk": "match",
    "embed_chunk": "match",
    "rank_chunk": "match",
}

TASK_NAMES = {task: f"captionq.{task}" for task in _MODEL_TASKS}
"""Celery task name of each kind of job."""

CHUNK_TASKS = frozenset(task for task in _MODEL_TASKS if task.endswith("_chunk"))
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
    """What a model has to be able to do for a kind of job: caption or match. KeyError for no kind
    of job."""
    return _MODEL_TASKS[task]


def queue_for(task: str, model: str | None = None, lane: Lane = INTERACTIVE) -> str:
    """The queue of a task's lane, or of a task's lane for one model alone. All that a matching
    model does goes one way, and chunks go where their images would.

    >>> queue_for("caption"), queue_for("caption", "Salesforce/blip-image-captioning-base")
    ('captionq.caption', 'captionq.caption.Salesforce-blip-image-captioning-base')
    >>> queue_for("caption", lane="bulk"), queue_for("caption", "org/blip", "bulk")
    ('captionq.caption.bulk', 'captionq.caption.org-blip.bulk')
    """
    name = f"captionq.{model_task(task)}"
    if model:
        name = f"{name}.{re.sub(r'[^A-Za-z0-9._]+', '-', model).strip('-')}"
        if is_bulk(name):  # of a model that is called so
            name += "-"
    return name + _BULK_END if lane == BULK else name


def is_bulk(queue: str) -> bool:
    """Whether a queue is of the bulk lane; any that is not ours is of the interactive one."""
    return queue.endswith(_BULK_END)


def queues_served(models: Iterable[tuple[str, str | None]]) -> list[str]:
    """The queues a worker subscribes to, given (task, model id) of what it has loaded: those of
    the interactive lane, then those of the bulk one."""
    served = [(task, of) for task, model in models for of in (None, model)]
    bulk = [queue_for(task, model, BULK) for task, model in served]
    return [DEFAULT_QUEUE, *(queue_for(task, model) for task, model in served), *bulk]
