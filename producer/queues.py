"""Names on the broker: tasks, queues, routing. Each is spelled here and nowhere else."""

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

DEFAULT_QUEUE = "celery"
"""Where Celery clients that know nothing of captionq send; every worker takes from it too."""

Lane = Literal["interactive", "bulk"]
"""Interactive jobs overtake bulk ones; bulk takes what room is left."""

INTERACTIVE: Lane = "interactive"
BULK: Lane = "bulk"


def model_task(task: str) -> str:
    """The task of the models that carry a job out: of a chunk, that of its images."""
    return _MODEL_TASKS.get(task, task)


def queue_for(task: str, model: str | None = None) -> str:
    """The queue of a task, or of a task for one model alone. Chunks go where their images would.

    >>> queue_for("caption"), queue_for("caption", "Salesforce/blip-image-captioning-base")
    ('captionq.caption', 'captionq.caption.Salesforce-blip-image-captioning-base')
    """
    name = TASK_NAMES[model_task(task)]
    return f"{name}.{re.sub(r'[^A-Za-z0-9._]+', '-', model).strip('-')}" if model else name


def queues_served(models: Iterable[tuple[str, str]]) -> list[str]:
    """The queues a worker subscribes to, given (task, model id) of what it has loaded."""
    names = [DEFAULT_QUEUE]
    for task, model in models:
        names += [queue_for(task), queue_for(task, model)]
    return names
