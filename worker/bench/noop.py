"""A bare Celery app with one task that does nothing: what a message costs without captionq.

    BENCH_BROKER=redis://... celery -A worker.bench.noop worker -P threads
"""

import os

from celery import Celery

from worker.app import app as ours

__all__ = ["app", "noop"]

SHARED = (
    "task_acks_late",
    "task_serializer",
    "accept_content",
    "task_send_sent_event",
    "worker_send_task_events",
    "worker_prefetch_multiplier",
)
"""Settings that have a price, as the worker has them."""

app = Celery("noop", broker=os.environ["BENCH_BROKER"], backend="disabled://")
app.conf.update({name: ours.conf[name] for name in SHARED}, worker_pool="threads")


@app.task(name="bench.noop", ignore_result=True)
def noop(**_: object) -> None:
    """Nothing."""
