"""RabbitMQ's queues, of which it tells how many messages wait, and shows none of them."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from amqp.exceptions import NotFound
from kombu import Connection

from producer.celery_app import celery_app
from producer.errors import BrokerUnavailable
from producer.publisher import CONNECT_TIMEOUT_S, FAULTS

HELD_MS = 35 * 60_000
"""Longer than RabbitMQ lets a worker hold a message before it takes it back (consumer_timeout)."""


class RabbitQueues:
    """The queues of one RabbitMQ; safe to share between threads.

    Every method raises BrokerUnavailable when it cannot be reached.
    """

    def __init__(self, broker_url: str) -> None:
        self._app = celery_app(
            broker_url,
            "",
            {"read_timeout": CONNECT_TIMEOUT_S, "write_timeout": CONNECT_TIMEOUT_S},
            backend="disabled://",
            set_as_current=False,
        )
        self._app.conf.broker_connection_timeout = CONNECT_TIMEOUT_S
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """How many messages wait in each; none in one that is not there."""
        with self._lock:
            try:
                return {queue: self._waiting(queue) for queue in queues}
            except FAULTS as exc:
                self._drop()
                raise BrokerUnavailable(f"The broker (RabbitMQ) cannot be reached: {exc}") from exc

    def next_in_line(self, queue: str) -> list[list[str]]:
        """As `Backlog.next_in_line`, of messages whose ids cannot be told."""
        return [[]] if self.depths([queue])[queue] else []

    def waiting(self, queue: str) -> set[str]:  # noqa: ARG002 - asked where none waits
        """As `Backlog.waiting`."""
        return set()

    def delayed(self, ids: Sequence[str]) -> set[str]:  # noqa: ARG002 - none as long as HELD_MS
        """As `Backlog.delayed`."""
        return set()

    def in_flight(self) -> set[str]:
        """As `Backlog.in_flight`: none for as long as HELD_MS."""
        return set()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()
            self._app.close()

    def _waiting(self, queue: str) -> int:
        if self._connection is None:
            self._connection = self._app.connection_for_read()
            self._connection.ensure_connection(max_retries=1, interval_start=0)
        channel: Any = self._connection.channel()
        try:
            declared = channel.queue_declare(queue, passive=True)
        except NotFound:  # and with it the channel
            return 0
        channel.close()
        return int(declared.message_count)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.collect()
        self._connection = None
