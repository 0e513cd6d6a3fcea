"""Celery's consumer of messages, a little more patient and a little less forgetful."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from celery.signals import worker_shutting_down
from celery.utils.dispatch import Signal
from celery.worker.consumer import Consumer as CeleryConsumer

log = logging.getLogger(__name__)

RECONNECT_EVERY_S = 1.0

broker_lost = Signal(name="broker_lost")
"""Sent, as Celery's own are, each time that the connection to the broker is lost."""


_Blueprint: Any = CeleryConsumer.Blueprint
GOSSIP = "celery.worker.consumer.gossip:Gossip"


class Consumer(CeleryConsumer):
    """Comes back soon after an outage of the broker, and buries what it cannot read.

    Celery 5.7 pauses for up to 30 s between tries to connect, so that a worker idles on after the
    broker is back; it acknowledges, that is forgets, messages whose body cannot be decoded; and
    those whose body holds no arguments it hands to a thread, which drops what they raise: message
    and place in the pool are held for as long as the worker lives. And it says that it shuts down
    when a signal tells it to, but not when Flower's button does, or SIGHUP, or an error.

    It goes without gossip (every worker hearing every event of every other one): nothing here
    listens to it, and it leaves a connection open each time the broker is lost.
    """

    class Blueprint(_Blueprint):  # type: ignore[misc]
        """Celery's steps, but for gossip."""

        default_steps: ClassVar = [step for step in _Blueprint.default_steps if step != GOSSIP]

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes, trying at least every RECONNECT_EVERY_S seconds."""
        conn.ensure_connection = partial(
            conn.ensure_connection,
            interval_start=0.1,
            interval_step=0.2,
            interval_max=RECONNECT_EVERY_S,
        )
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say so; then as ever."""
        broker_lost.send(sender=self.hostname)
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """What is called with every message: Celery's handler, for those it can read."""
        handle: Callable[[Any], Any] = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            if "task" in (message.headers or {}):
                try:
                    payload = message.payload
                except Exception as exc:  # noqa: BLE001 - whatever a stranger wrote
                    return self.on_decode_error(message, exc)
                if not is_readable(payload):
                    return self.on_decode_error(message, ValueError("its body is no arguments"))
            return handle(message)

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject: the transport buries it."""
        log.error("a message cannot be read: %r", exc)
        message.reject()

    def stop(self) -> None:
        """Stop taking messages; before the pool waits for its last jobs, say so."""
        worker_shutting_down.send(sender=self.hostname, sig=None, how="Warm", exitcode=None)
        super().stop()


def is_readable(payload: Any) -> bool:
    """Whether the body of a message that names its task holds arguments: [args, kwargs, options]
    (Celery's protocol 2), or a mapping that has them."""
    if isinstance(payload, dict):
        return "args" in payload
    match payload:
        case [list(), dict(), dict() | None]:
            return True
        case _:
            return False
