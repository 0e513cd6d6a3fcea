"""Results of a set of jobs that grows, as they end: one subscription for all of them."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from redis.client import PubSub

from producer.contract import JobResult
from producer.errors import StoreUnavailable
from producer.ledger import SOCKET_TIMEOUT_S, Ledger, typed_errors
from producer.waiting import Waiting


class Watch(Protocol):
    """Watches jobs, each until its result has come; for one thread."""

    def add(self, job_ids: Iterable[str]) -> None:
        """Watch these too, whether they are known yet or not."""

    def next(self, timeout_s: float) -> list[JobResult]:
        """The results that have come since the last call; none after so many seconds without.

        Raises:
            StoreUnavailable: the store is lost. No result is: the next call reaches for it again.
        """

    def close(self) -> None:
        """Watch no more."""


class RedisWatch:
    """A `Watch` on Redis.

    Args:
        ledger: knows the channels.
        subscription: opens a subscription.
        results: looks results up.
    """

    def __init__(
        self,
        ledger: Ledger,
        subscription: Callable[[], PubSub],
        results: Callable[[list[str]], Iterable[JobResult | None]],
    ) -> None:
        self._waiting = Waiting(ledger, (), timeout_s=math.inf)
        self._subscription = subscription
        self._results = results
        self._channels: PubSub | None = None

    def add(self, job_ids: Iterable[str]) -> None:
        """See `Watch.add`."""
        self._waiting.add(job_ids)

    def next(self, timeout_s: float) -> list[JobResult]:
        """See `Watch.next`."""
        if self._waiting:
            try:
                wait_s = min(timeout_s, self._waiting.patience_s())
                with typed_errors():
                    for message in messages(self._subscribed(), wait_s):
                        self._waiting.hear(message)
                for result in self._results(self._waiting.due()):
                    self._waiting.found(result)
            except StoreUnavailable:
                self.close()
                raise
        arrived = self._waiting.arrived()
        self._forget(arrived)
        return arrived

    def close(self) -> None:
        """See `Watch.close`."""
        if self._channels is not None:
            channels, self._channels = self._channels, None
            channels.close()

    def _subscribed(self) -> PubSub:
        added = self._waiting.added()
        if self._channels is None:
            self._channels = self._subscription()
            added = self._waiting.channels()
        if added:
            self._channels.subscribe(*added)
        return self._channels

    def _forget(self, arrived: Iterable[JobResult]) -> None:
        """Unsubscribe, lest channels pile up. A connection that is lost thereby is made anew."""
        over = self._waiting.channels_of(result.job_id for result in arrived)
        if over and self._channels is not None:
            try:
                with typed_errors():
                    self._channels.unsubscribe(*over)  # type: ignore[no-untyped-call]
            except StoreUnavailable:
                self.close()


def messages(channels: PubSub, timeout_s: float) -> Iterator[dict[str, Any]]:
    """What a subscription says, waiting for the first message only, for `timeout_s` seconds.

    Once the first byte of a message is there, its rest is waited for: a chunk's result comes in
    several pieces, and `get_message(timeout=0)` takes what is not there yet for a lost connection.
    """
    channels.check_health()
    connection: Any = channels.connection
    while connection.can_read(timeout=timeout_s):
        message = channels.get_message(timeout=SOCKET_TIMEOUT_S)
        if message is not None:  # else the answer to a ping
            yield message
        timeout_s = 0.0
