"""The messages this process holds, and the leases on them.

A message that was taken is this process's for `visibility_timeout_s`, by Redis' clock; the event
loop renews that while the message is held, however long its job takes. When the process dies, or
its loop hangs, the leases end, and whichever worker sweeps next queues the messages again, first
in line. (The idea is Amazon SQS' visibility timeout with heartbeats; kombu's own has no heartbeat:
a long job runs again while it runs.)

Leases outlive connections: after an outage of Redis they are renewed by the next connection, and
what still runs can be acknowledged by it. A message that Celery let go of without a word (it
forgets what it had not begun when a connection breaks) is noticed by its being gone, and returned.
"""

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import redis
from kombu.utils.json import dumps

from worker.inflight import POSTPONE, RELEASE, RENEW, RETURN, SWEEP, Keys
from worker.lanes import slots_taken

log = logging.getLogger(__name__)

VISIBILITY_TIMEOUT_S = 20.0
SWEEP_EVERY_S = 2.0
SWEEP_LIMIT = 100
"""Messages queued again by one script, so that Redis is never held."""
TAKE_LAG_S = 0.02
"""How much later than what was sent after it Redis may read a take."""
SWEEP_SCRIPTS = 20
"""Scripts in one sweep, so that the event loop is not held either; the rest waits for the next."""

Bury = Callable[[str, str, str], None]
"""(message as it lay in Redis, its queue, why): keeps what cannot be worked on. May raise."""


def drop(message: str, queue: str, reason: str) -> None:
    """Bury where nothing is kept: in the log."""
    log.critical("dropped a message of %s: %s: %.1000r", queue, reason, message)


class Leases:
    """The leases of one process; safe to share between threads.

    Args:
        visibility_timeout_s: how long a message stays with a process that is silent.
        renew_every_s: a quarter of that unless given.
        sweep_every_s: how often ended leases and due messages are looked for.
        bury: where malformed and rejected messages go.

    Raises:
        ValueError: `renew_every_s` leaves no room for three failed renewals.
    """

    def __init__(
        self,
        visibility_timeout_s: float = VISIBILITY_TIMEOUT_S,
        *,
        renew_every_s: float | None = None,
        sweep_every_s: float = SWEEP_EVERY_S,
        bury: Bury = drop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.visibility_timeout_s = visibility_timeout_s
        self._renew_every_s = renew_every_s or visibility_timeout_s / 4
        if self._renew_every_s > visibility_timeout_s / 4:
            raise ValueError(
                f"leases of {visibility_timeout_s} s have to be renewed every "
                f"{visibility_timeout_s / 4} s or more often, not every {self._renew_every_s} s"
            )
        self._sweep_every_s = sweep_every_s
        self.bury = bury
        self._clock = clock
        self._keys = Keys()
        self._redis: redis.Redis | None = None
        self._scripts: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._held: dict[str, weakref.ref[Any]] = {}
        self._bulk: dict[str, int] = {}
        self._asked: set[str] = set()
        self._done: set[str] = set()
        self.slots: float = math.inf
        """Most messages that may be held."""
        self.bulk_slots: float = math.inf
        """Most images behind messages of bulk lanes among them; see `bulk_held`."""
        self.on_room: Callable[[], object] = lambda: None
        """Called, from whatever thread, when a message may be taken that had no room before."""
        self.lost = 0
        """Leases that ended before they were renewed, so far."""
        self.queued_again = 0
        """Messages, of whatever process, whose lease had ended and that this one queued again."""
        self.closed = False
        self._renewed_s = self._swept_s = self._sweep_from_s = clock()
        self._last_sweep_ms: tuple[float, float] | None = None
        self._unanswered = False

    def __json__(self) -> dict[str, float]:
        """What Celery's `inspect stats` shows of it; kombu's JSON asks for this."""
        return {
            "visibility_timeout_s": self.visibility_timeout_s,
            "held": self.held(),
            "bulk_held": self.bulk_held(),
        }

    @property
    def lease_ms(self) -> int:
        """How long a lease is, in milliseconds."""
        return round(self.visibility_timeout_s * 1_000)

    def attach(self, client: redis.Redis, keys: Keys) -> None:
        """Use this client from now on; what is held is renewed at once.

        For one interval of renewal nothing is swept: after an outage others may not be back yet
        to renew theirs.
        """
        scripts = (POSTPONE, RELEASE, RENEW, RETURN, SWEEP)
        with self._lock:
            self._redis, self._keys = client, keys
            self._scripts = {script: client.register_script(script) for script in scripts}
            self._sweep_from_s = self._clock() + self._renew_every_s
            self._renewed_s = self._clock() - self._renew_every_s
            self._last_sweep_ms = None
            self._unanswered = False
        if self._held or self._done:
            self.renew()

    def held(self) -> int:
        """How many messages this process holds."""
        return len(self._held)

    def bulk_held(self) -> int:
        """The slots that messages of bulk lanes take: see `worker.lanes.slots_taken`."""
        with self._lock:
            return self._slots_taken()

    def _slots_taken(self) -> int:
        return slots_taken(self._bulk.values(), self.bulk_slots)

    def asked(self, tag: str) -> None:
        """A take was sent: from when Redis has it on, a message may be ours under this tag."""
        self._asked.add(tag)

    def answered(self, tag: str) -> None:
        """The take found nothing, or what it found is held or dealt with."""
        self._asked.discard(tag)

    def hold(self, tag: str, message: Any, bulk: int = 0) -> None:
        """From now on the lease is renewed, for as long as anybody keeps `message`; behind it are
        so many images of a bulk lane."""
        with self._lock:
            self._held[tag] = weakref.ref(message)
            if bulk:
                self._bulk[tag] = bulk

    def _let_go(self, *tags: str, done: bool = False) -> None:
        with self._lock:
            full = len(self._held) >= self.slots or self._slots_taken() >= self.bulk_slots
            for tag in tags:
                self._held.pop(tag, None)
                self._bulk.pop(tag, None)
            if done:
                self._done.update(tags)
        if full:
            self.on_room()

    def release(self, tag: str) -> None:
        """The message is done with. Redis is told by the next `flush`, which outlives outages."""
        self._let_go(tag, done=True)

    def flush(self) -> None:
        """Tell Redis what was released. Raises: redis.RedisError; the tags are kept then."""
        with self._lock:
            done = list(self._done)
        if done:
            self._run(RELEASE, *done)
            with self._lock:
                self._done.difference_update(done)

    def flush_softly(self) -> None:
        """`flush`, unless Redis refuses: then later."""
        try:
            self.flush()
        except redis.ResponseError as exc:
            log.debug("releases wait: Redis refuses: %s", exc)

    def give_back(self, *tags: str, first: bool = True) -> int:
        """Put messages back into their queues, first or last in line, if they are still ours.

        Returns how many were. Raises: redis.RedisError; their leases end by themselves then.
        """
        self._let_go(*tags)
        return int(self._run(RETURN, "RPUSH" if first else "LPUSH", *tags)) if tags else 0

    def return_all(self) -> int:
        """Put back all that this process holds, or has asked for and may get without looking at it
        any more, and take nothing more; returns how many.

        One step: each message is returned once, and later acknowledgements find nothing.
        Raises: redis.RedisError.
        """
        self.closed = True
        self.flush()
        with self._lock:
            tags = list(self._held)
        asked = list(self._asked - set(tags))
        returned = self.give_back(*reversed(tags), *asked)
        if asked:  # Redis may have read this sooner than the take, which came by another way
            time.sleep(TAKE_LAG_S)
            returned += self.give_back(*asked)
        return returned

    def postpone(self, tag: str, name: str, due_ms: int) -> None:
        """Keep a message that was taken too early until `due_ms` (Redis' clock)."""
        keys = self._keys
        self._run(POSTPONE, keys.delayed, keys.delayed_messages, tag, name, due_ms)

    def reject(self, tag: str, reason: str) -> None:
        """Bury a message that is held."""
        held = self._held.get(tag)
        message = held() if held is not None else None
        if message is not None:
            queue = str(message.delivery_info.get("routing_key"))
            self.dead(tag, dumps(message._raw), queue, reason)

    def dead(self, tag: str, message: str, queue: str, reason: str) -> None:
        """Bury a message; where that fails it stays in flight, and comes again."""
        try:
            self.bury(message, queue, reason)
        except Exception:
            log.exception("a message of %s could not be buried (%s)", queue, reason)
            self._let_go(tag)
        else:
            self.release(tag)

    def tick(self) -> None:
        """What is due: releases, renewals, sweeps. Called by the event loop.

        A Redis that does not answer may hang for all, longer than leases last, and no connection
        breaks: when it is back, nothing is swept before others had the time to renew theirs.

        Raises: redis.ConnectionError, redis.TimeoutError.
        """
        client = self._redis
        if client is None:
            return
        try:
            if self._unanswered:
                client.ping()
                self._unanswered = False
                self._sweep_from_s = self._clock() + self._renew_every_s
            self.flush()
            now_s = self._clock()
            if now_s - self._renewed_s >= self._renew_every_s:
                self._renew()
            if now_s - self._swept_s >= self._sweep_every_s and now_s >= self._sweep_from_s:
                self._sweep()
        except (redis.ConnectionError, redis.TimeoutError):
            self._unanswered = True
            raise
        except redis.ResponseError as exc:  # full, read-only, loading: it will pass
            log.warning("leases: Redis refuses: %s", exc)

    def renew(self) -> None:
        """Renew all leases now, whatever thread this is; errors are logged."""
        try:
            self.flush()
            self._renew()
        except redis.RedisError as exc:
            log.warning("leases could not be renewed: %s", exc)

    def _renew(self) -> None:
        with self._lock:
            tags = [tag for tag, message in self._held.items() if message() is not None]
            gone = [tag for tag, message in self._held.items() if message() is None]
        lost = self._run(RENEW, self.lease_ms, *tags) if tags else []
        self._renewed_s = self._clock()
        if lost:
            self.lost += len(lost)
            log.warning(
                "%d leases ended before they were renewed; the jobs may run twice", len(lost)
            )
        if gone:
            log.info("%d messages that were not begun go back to their queues", len(gone))
            self.give_back(*reversed(gone))

    def _sweep(self) -> None:
        """Queue again what has no lease any more, and what is due.

        Moments are Redis' own. When its clock has run away from ours since the last sweep, all
        leases may seem to have ended, or to last for hours: their owners are given the time to
        renew them first.
        """
        ended, due = 0, 0
        for _ in range(SWEEP_SCRIPTS):
            more_ended, more_due = self._sweep_some()
            if more_ended < 0:
                log.warning("the clock of Redis has jumped; sweeping waits for renewals")
                self._sweep_from_s = self._clock() + 2 * self._renew_every_s
                break
            ended, due = ended + more_ended, due + more_due
            if max(more_ended, more_due) < SWEEP_LIMIT:
                break
        if ended:
            self.queued_again += ended
            log.warning("%d messages whose worker is gone are queued again", ended)
        elif due:
            log.debug("%d delayed messages are due", due)

    def _sweep_some(self) -> tuple[int, int]:
        """One script: how many leases had ended (-1: the clock has jumped), and messages due."""
        earliest = latest = 0.0
        if self._last_sweep_ms is not None:
            then_ms, then_s = self._last_sweep_ms
            expected = then_ms + (self._clock() - then_s) * 1_000
            earliest, latest = expected - self.lease_ms / 2, expected + self.lease_ms / 2
        keys = self._keys
        bounds = (SWEEP_LIMIT, round(earliest), round(latest), self.lease_ms)
        now, ended, due = self._run(SWEEP, keys.delayed, keys.delayed_messages, *bounds)
        self._swept_s = self._clock()
        self._last_sweep_ms = (float(now), self._swept_s)
        return int(ended), int(due)

    def _run(self, script: str, *args: Any) -> Any:
        return self._call(script, self._keys.inflight, self._keys.leases, *args)

    def _call(self, script: str, *args: Any) -> Any:
        registered = self._scripts.get(script)
        if registered is None:
            raise redis.ConnectionError("not connected yet")
        return registered(args=args)
