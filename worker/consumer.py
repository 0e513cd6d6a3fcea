"""Celery's consumer of messages, a little more patient and a little less forgetful."""

from functools import partial
from typing import Any

from celery.signals import worker_shutting_down
from celery.worker.consumer import Consumer as CeleryConsumer

RECONNECT_EVERY_S = 1.0


class Consumer(CeleryConsumer):
    """Comes back soon after an outage of the broker, and buries what it cannot read.

    Celery 5.7 pauses for up to 30 s between tries to connect, so that a worker idles on after the
    broker is back; and it acknowledges, that is forgets, messages whose body cannot be decoded.
    And it says that it shuts down when a signal tells it to, but not when Flower's button does, or
    SIGHUP, or an error.
    """

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes, trying at least every RECONNECT_EVERY_S seconds."""
        conn.ensure_connection = partial(
            conn.ensure_connection,
            interval_start=0.1,
            interval_step=0.2,
            interval_max=RECONNECT_EVERY_S,
        )
        return super().ensure_connected(conn)

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """Reject: the transport buries it."""
        message.reject()

    def stop(self) -> None:
        """Stop taking messages; before the pool waits for its last jobs, say so."""
        worker_shutting_down.send(sender=self.hostname, sig=None, how="Warm", exitcode=None)
        super().stop()
