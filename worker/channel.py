"""A channel to Redis that takes messages in one step, and leaves them to the leases.

A script cannot wait for a list to fill as BRPOP does. So a take that found nothing leaves its
connection listening: Redis tells it when one of the lists has changed (CLIENT TRACKING, Redis 6.0
and later), and the next take goes out at once. Where that is refused, lists are polled.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty
from time import monotonic
from typing import Any

import redis
from kombu.transport import redis as typed_stock
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps
from kombu.utils.uuid import uuid

from producer.queues import BULK, INTERACTIVE, Lane, is_bulk
from worker.inflight import DELAY, TAKE, Keys, entry
from worker.lanes import in_a_row, offered
from worker.leases import VISIBILITY_TIMEOUT_S, Leases
from worker.message import due_ms, name_of, opened, text
from worker.qos import QoS

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How often lists are looked at where Redis does not tell that they changed."""

_TAKE_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()

stock: Any = typed_stock
_Kombu: Any = object
"""Stands for kombu's class that the mixin goes with; kombu's stubs know little of these."""


class _Channel(_Kombu):  # type: ignore[misc]
    """What both channels, for one Redis and for Sentinel, do in another way than kombu's."""

    QoS = QoS
    queue_order_strategy = "priority"
    visibility_timeout = VISIBILITY_TIMEOUT_S
    unacked_restore_interval = 1
    unacked_restore_throttle = 1
    leases: Any = None
    owns_leases = False

    _listening = False
    """The last take found nothing; Redis may say that a list has changed."""
    _brpop_sent_at: float | None = None
    """When the take was sent whose answer is due; kombu gives up a connection that owes it."""
    _taken_s = 0.0
    _tag = ""
    _tracked: Any = None
    _rest_s = POLL_S
    _known_to_redis = False
    _attached = False
    _lanes: tuple[Lane, ...] = (INTERACTIVE, BULK)
    """What the last take was to look through."""
    _in_a_row = 0
    """See worker/lanes.py."""
    taken_from = ""
    """The queue of the message that is being delivered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unacknowledged: set[str] = set()
        super().__init__(*args, **kwargs)
        if self.leases is None:
            self.leases, self.owns_leases = Leases(self.visibility_timeout), True

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        if no_ack:
            self._unacknowledged.add(queue)
        self._attach()
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:
        self._attach()
        tag = uuid()
        taken = self._scripted(TAKE)(self._lists([queue]), self._take_args(tag))
        if taken is None:
            return None
        payload = self._opened(tag, *taken)
        if payload is None:
            return None
        self.taken_from = queue
        message = self.Message(payload, channel=self)
        self.qos.append(message, tag)
        if no_ack:
            message.ack()
            self.leases.flush_softly()
        return message

    def _attach(self) -> None:
        if not self._attached:
            self._attached = True
            self.leases.attach(self._plain(), Keys(self.global_keyprefix))

    def _plain(self) -> redis.Redis:
        """A client that leaves keys as they are: ours have their prefix already."""
        return redis.Redis(connection_pool=self.pool)

    def _scripted(self, script: str) -> Callable[..., Any]:
        registered = self._plain().register_script(script)
        return lambda keys, args: registered(keys=keys, args=args)

    def _lists(self, queues: list[str]) -> list[str]:
        """The lists of queues, in the order they are emptied."""
        return [
            self.global_keyprefix + self._q_for_pri(queue, priority)
            for priority in self.priority_steps
            for queue in queues
        ]

    def _take_args(self, tag: str) -> list[Any]:
        keys = Keys(self.global_keyprefix)
        return [keys.inflight, keys.leases, tag, self.leases.lease_ms]

    @property
    def active_queues(self) -> list[str]:
        """The queues that are consumed, in the order they were subscribed to; kombu's is a set."""
        return [queue for queue in self._active_queues if queue not in self.active_fanout_queues]

    def _lanes_now(self) -> tuple[Lane, ...]:
        return offered(self.leases.bulk_held(), self.leases.bulk_slots, self._in_a_row)

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send a take."""
        self._lanes = self._lanes_now()
        of_lane: dict[Lane, list[str]] = {INTERACTIVE: [], BULK: []}
        for queue in self.active_queues:
            of_lane[BULK if is_bulk(queue) else INTERACTIVE].append(queue)
        lists = [name for lane in self._lanes for name in self._lists(of_lane[lane])]
        if not lists:
            return
        connection = self.client.connection
        if self._tracked is not connection._sock:
            self._track(connection)
        self._tag = uuid()
        script = ("EVALSHA", _TAKE_SHA) if self._known_to_redis else ("EVAL", TAKE)
        self._brpop_sent_at = self._taken_s = monotonic()
        connection.send_command(*script, len(lists), *lists, *self._take_args(self._tag))
        self._in_poll, self._listening = connection, False

    def _track(self, connection: Any) -> None:
        """Ask Redis to tell this connection when a list that it found empty has changed."""
        self._known_to_redis = False
        try:
            connection.send_command("CLIENT", "TRACKING", "ON")
            connection.read_response()
            connection._parser.set_invalidation_push_handler(lambda push: push)
            self._rest_s = float(self.brpop_timeout)
        except (redis.ResponseError, AttributeError) as exc:
            log.warning("Redis does not tell of new messages (%s); polling for them", exc)
            self._rest_s = POLL_S
        self._tracked = connection._sock

    def rested(self) -> None:
        """Let the next turn send a take, if this channel has listened long enough."""
        if self._listening and monotonic() - self._taken_s >= self._rest_s:
            self._in_poll = self._listening = False

    def roomier(self) -> None:
        """Let the next turn send a take, if it may look through a lane that the last could not."""
        if self._listening and len(self._lanes_now()) > len(self._lanes):
            self._in_poll = self._listening = False

    def _brpop_read(self, **_: Any) -> bool:
        """Read the answer to a take, or, listening, that a list has changed. Raises: Empty."""
        connection = self.client.connection
        try:
            taken = None if self._listening else self._answer(connection)
            news = taken is None and self._read_news(connection)
        except self.connection_errors:
            connection.disconnect()
            self._in_poll = self._listening = False
            raise
        if taken is None and not news:
            self._listening, self._brpop_sent_at = True, None
            raise Empty
        self._in_poll = self._listening = False
        self._flush_brpop_reauth()
        if taken is not None:
            self._deliver(self._tag, *taken)
        return True

    def overheard(self) -> None:
        """Read news that came when nobody listened. A connection that has ended is closed."""
        connection = self.client.connection
        try:
            self._read_news(connection)
        except self.connection_errors:
            connection.disconnect()

    def _read_news(self, connection: Any) -> bool:
        """Whether Redis has said that a list changed."""
        news = False
        while connection.can_read(0):
            connection.read_response(push_request=True)
            news = True
        return news

    def _answer(self, connection: Any) -> Any:
        """What a take found: (list, message, now), or None."""
        try:
            taken = self.client.parse_response(connection, "EVALSHA")
        except redis.exceptions.NoScriptError:
            self._known_to_redis = False
            return None
        except redis.exceptions.ReadOnlyError as exc:  # a replica now: find the master anew
            raise redis.ConnectionError(str(exc)) from exc
        except redis.ResponseError as exc:  # full, loading, not allowed: it may pass
            log.warning("nothing can be taken: Redis refuses: %s", exc)
            return None
        self._known_to_redis = True
        return taken

    def _deliver(self, tag: str, list_key: bytes, message: bytes, now_ms: int) -> None:
        queue = self._queue_of(bytes_to_str(list_key))
        callback = self.connection._callbacks.get(queue)
        if callback is None or self._late():  # cancelled meanwhile, or somebody else's by now
            self.leases.give_back(tag)
            return
        payload = self._opened(tag, list_key, message, now_ms)
        if payload is None:
            return
        self.taken_from = queue
        lane = BULK if is_bulk(queue) else INTERACTIVE
        self._in_a_row = in_a_row(self._in_a_row, self._lanes, lane)
        try:
            callback(payload)
        except (redis.RedisError, OSError):
            raise
        except Exception as exc:
            log.exception("a message of %s cannot be worked on", queue)
            self.leases.dead(tag, text(message), queue, f"{type(exc).__name__}: {exc}")
        if queue in self._unacknowledged:
            self.leases.release(tag)
            self.leases.flush_softly()  # a client may close at once: no turn comes after this

    def _late(self) -> bool:
        """Whether an answer is read so late that its lease may end before it is renewed.

        It is when this process was stopped, or had no room, after it had sent the take.
        """
        waited_s = monotonic() - self._taken_s
        return bool(self.leases.closed or waited_s > self.leases.visibility_timeout_s / 2)

    def _opened(self, tag: str, list_key: bytes, message: bytes, now_ms: int) -> Any:
        """The payload, ready to be delivered; None when it is not: malformed, or not yet due."""
        try:
            payload, name, moment_ms = opened(message)
            self.Message(payload, channel=self)  # raises for what Celery would choke on
        except Exception as exc:  # noqa: BLE001 - whatever a stranger wrote
            queue = self._queue_of(bytes_to_str(list_key))
            log.error("an entry of %s is no message: %r", queue, exc)
            self.leases.dead(tag, text(message), queue, f"{type(exc).__name__}: {exc}")
            return None
        if moment_ms is not None:
            if moment_ms > now_ms:
                self.leases.postpone(tag, name, moment_ms)
                return None
            payload["headers"]["eta"] = None
        payload["properties"]["delivery_tag"] = tag
        return payload

    def _queue_of(self, list_key: str) -> str:
        return list_key[len(self.global_keyprefix) :].rsplit(self.sep, 1)[0]

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """Queue a message; one with an `eta` waits in Redis until then.

        How long is measured by the clock that the eta was made with: this process'.
        """
        headers = message.get("headers")
        moment_ms = due_ms(headers)
        left_s = 0.0 if moment_ms is None else moment_ms / 1_000 - datetime.now(UTC).timestamp()
        if left_s <= 0 or "_publish_batch" in kwargs:
            super()._put(queue, message, **kwargs)
            return
        keys = Keys(self.global_keyprefix)
        priority = self._get_message_priority(message, reverse=False)
        list_key = self.global_keyprefix + self._q_for_pri(queue, priority)
        message = message | {"headers": headers | {"eta": None}}
        kept, delay_ms = entry(list_key, dumps(message)), round(left_s * 1_000)
        args = [keys.delayed, keys.delayed_messages, name_of(message), kept, delay_ms]
        self._scripted(DELAY)([], args)

    def close(self) -> None:
        """Close; a message that is just being taken goes back."""
        connection, self._in_poll = self._in_poll, False
        if connection and not self._listening:
            with suppress(redis.RedisError, *self.connection_errors):  # its lease ends by itself
                taken = self._answer(connection)
                if taken is not None:
                    self.leases.give_back(self._tag)
        super().close()


class Channel(_Channel, stock.Channel):  # type: ignore[misc]
    """A channel to one Redis."""

    from_transport_options = (*stock.Channel.from_transport_options, "leases")


class SentinelChannel(_Channel, stock.SentinelChannel):  # type: ignore[misc]
    """A channel to the master that Redis Sentinel names."""

    from_transport_options = (*stock.SentinelChannel.from_transport_options, "leases")
