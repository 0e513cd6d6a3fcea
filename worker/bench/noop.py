"""A bare Celery app with one task that does nothing: what a message costs without captionq.

BENCH_BROKER=redis://... celery -A worker.bench.noop worker -P threads
"""

import os

from celery import Celery

__all__ = ["app", "noop"]

app = Celery("noop", broker=os.environ["BENCH_BROKER"], backend="disabled://")
app.conf.update(  # what has a price, as the worker has it; the worker's module would load models
    task_acks_late=True,
    task_serializer="json",
    accept_content=["json"],
    task_send_sent_event=True,
    worker_send_task_events=True,
    worker_prefetch_multiplier=1,
    worker_pool="threads",
)


@app.task(name="bench.noop", ignore_result=True)
def noop(**_: object) -> None:
    """Nothing."""
