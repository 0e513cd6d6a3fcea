"""kombu's "quality of service" of a channel: how many messages it may hold, and which it holds."""

import math
from typing import Any

from kombu.transport import redis as typed_stock

from producer.queues import is_bulk
from worker.leases import Leases
from worker.message import images_behind

stock: Any = typed_stock


class QoS(stock.QoS):  # type: ignore[misc]
    """Which messages are in flight is what the leases say."""

    def can_consume(self) -> bool:
        """Whether there is room for one more message."""
        leases: Leases = self.channel.leases
        leases.slots = self.prefetch_count or math.inf
        return not leases.closed and leases.held() < leases.slots

    def append(self, message: Any, delivery_tag: str) -> None:
        """Hold a message."""
        bulk = images_behind(message.headers or {}) if is_bulk(self.channel.taken_from) else 0
        self.channel.leases.hold(delivery_tag, message, bulk)

    def ack(self, delivery_tag: str) -> None:
        """The message is done with."""
        self.channel.leases.release(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message back, last in line, or bury it."""
        if requeue:
            self.channel.leases.give_back(delivery_tag, first=False)
        else:
            self.channel.leases.reject(delivery_tag, "rejected")

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """The event loop calls this every `unacked_restore_interval`."""
        self.channel.leases.tick()

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002
        """A channel that is closed returns its messages, if they are its own."""
        self._on_collect.cancel()
        if self.channel.owns_leases:
            self.channel.leases.return_all()
