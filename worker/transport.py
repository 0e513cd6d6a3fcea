"""The Redis transport of the worker: kombu's, made to lose nothing and to live through everything.

What kombu 5.7 does, and what this does instead (tests/integration/test_transport.py shows each):

- it takes a message (BRPOP) and records that it did (ZADD, HSET) in two steps, and what is between
  them is lost when the worker is killed; here both are one script (worker/inflight.py);
- it queues a message again when its worker has held it for a fixed time, running or not; here
  leases are renewed (worker/leases.py);
- it hands messages with a later `eta` to the worker, which sits on them; here they wait in Redis;
- it tries to return messages through a connection that is lost, and raises AttributeError, which
  ends the worker; here they stay with the process that runs them;
- it ends the worker over one entry of a queue that is no message; here that is buried;
- it leaves a callback of every connection that was lost in the event loop; here it is taken away.
"""

from collections.abc import Callable
from typing import Any

from kombu.transport import redis as typed_stock

from worker.channel import POLL_S, Channel, SentinelChannel

stock: Any = typed_stock
_Kombu: Any = object
"""Stands for kombu's class that the mixin goes with; kombu's stubs know little of these."""


class Poller(stock.MultiChannelPoller):  # type: ignore[misc]
    """kombu's poller of channels, for takes that do not wait in Redis."""

    timer: Any = None
    """The event loop's entry for `take_again`, so that it is there once."""

    wake: Callable[[], object] = staticmethod(lambda: None)
    """Makes the event loop, where there is one, turn at once, whatever thread asks."""

    def on_poll_start(self) -> None:
        """Once per turn of the event loop: tell what is done, then ask for more."""
        for channel in self._channels:
            channel.leases.on_room = self.wake
            channel.leases.flush_softly()
            channel.roomier()
        super().on_poll_start()

    def on_readable(self, fileno: int) -> None:
        """Read what has come; between takes that is news of changed lists, or the end."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if kind == "BRPOP" and not channel._in_poll and fileno not in self._paused_brpop:
            channel.overheard()
        else:
            super().on_readable(fileno)

    def take_again(self) -> None:
        """Send a new take where none is under way and the last found nothing for a while."""
        for channel in self._channels:
            channel.rested()

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Without an event loop: one look, of bounded length. Raises: Empty."""
        self.take_again()
        super().get(callback, POLL_S if timeout is None else min(timeout, POLL_S))


class _Transport(_Kombu):  # type: ignore[misc]
    _loop: Any = None
    _ticks: frozenset[Any] = frozenset()
    """What this transport has added to the event loop's turns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        before = frozenset(loop.on_tick)
        super().register_with_event_loop(connection, loop)
        self._loop, self._ticks = loop, self._ticks | (loop.on_tick - before)
        if self.cycle.timer is not None:
            self.cycle.timer.cancel()
        self.cycle.timer = loop.call_repeatedly(POLL_S, self.cycle.take_again)
        self.cycle.wake = lambda: loop.call_soon(_turn)

    def close_connection(self, connection: Any) -> None:
        """Close; the event loop, which outlives connections, forgets this one."""
        if self._loop is not None:
            self._loop.on_tick -= self._ticks
        super().close_connection(connection)


class Transport(_Transport, stock.Transport):  # type: ignore[misc]
    """For redis://, rediss:// and redis+socket://."""

    Channel = Channel


class SentinelTransport(_Transport, stock.SentinelTransport):  # type: ignore[misc]
    """For sentinel://."""

    Channel = SentinelChannel


def _turn() -> None:
    """Nothing: that it is called makes the event loop turn at once."""


def transport_for(broker_url: str) -> str | None:
    """The transport of a broker URL as Celery takes it; None leaves the choice to kombu."""
    if broker_url.startswith(("redis://", "rediss://", "redis+socket://")):
        return f"{__name__}:{Transport.__name__}"
    if broker_url.startswith("sentinel://"):
        return f"{__name__}:{SentinelTransport.__name__}"
    return None
