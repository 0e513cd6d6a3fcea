"""A Celery app whose one task sleeps, on the transport of SLEEPER_TRANSPORT: "ours" or "stock".

SLEEPER_BROKER=redis://... celery -A tests.sleeper worker -P threads
"""

import os
import time

from celery import Celery

from worker.consumer import Consumer
from worker.leases import Leases
from worker.transport import Transport

app = Celery("sleeper", broker=os.environ["SLEEPER_BROKER"], backend="disabled://")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)
if os.environ.get("SLEEPER_TRANSPORT", "ours") == "ours":
    app.conf.update(
        broker_transport=f"{Transport.__module__}:{Transport.__name__}",
        broker_transport_options={"leases": Leases(), "unacked_restore_interval": 1},
        worker_consumer=f"{Consumer.__module__}:{Consumer.__name__}",
        worker_enable_prefetch_count_reduction=False,
    )


@app.task(name="sleep")
def sleep(seconds: float) -> None:
    """Take so long."""
    time.sleep(seconds)
