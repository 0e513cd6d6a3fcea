"""What RabbitMQ is told of the queues; of Redis nothing need be said."""

import math
from typing import Any, Literal

from kombu import Exchange, Queue

QueueKind = Literal["classic", "priority", "quorum"]

MAX_PRIORITY = 9

_CELERY: dict[QueueKind, dict[str, Any]] = {
    "classic": {},
    "priority": {"task_queue_max_priority": MAX_PRIORITY},
    "quorum": {
        "task_create_missing_queue_type": "quorum",
        "task_create_missing_queue_exchange_type": "topic",
    },
}


def kind_for(broker_url: str, kind: QueueKind) -> QueueKind:
    """The kind of the queues of a broker: that of the settings where it is RabbitMQ."""
    return kind if broker_url.startswith(("amqp", "pyamqp")) else "classic"


def celery_settings(broker_url: str, kind: QueueKind) -> dict[str, Any]:
    """Celery's settings by which any client declares the queues as all others do. (RabbitMQ refuses
    to have one queue declared in two ways.)"""
    return _CELERY[kind_for(broker_url, kind)]


def delay_s(broker_url: str, kind: QueueKind, wait_s: float) -> float:
    """How long a message waits that is to wait so long, in seconds: of a quorum queue whole ones,
    one at least, since Celery rounds them down and sends nothing that is due in none."""
    return max(1, math.ceil(wait_s)) if kind_for(broker_url, kind) == "quorum" else wait_s


def queue_named(name: str, broker_url: str, kind: QueueKind) -> Queue:
    """A queue that a worker takes from.

    Quorum queues hang on topic exchanges: through those Celery has a message wait in RabbitMQ until
    it is due, not in a worker.
    """
    if kind_for(broker_url, kind) != "quorum":
        return Queue(name, Exchange(name), routing_key=name)
    exchange = Exchange(name, type="topic")
    return Queue(name, exchange, routing_key=name, queue_arguments={"x-queue-type": "quorum"})
