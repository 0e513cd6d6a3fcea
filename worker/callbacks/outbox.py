"""Callbacks that are due, in Redis: claimed with a lease, settled, written down, sent once more.

What lies there: producer/ledger.py. All moments are of Redis' clock. A callback is one of those
that are due until its fate is settled; while somebody tries it, it is due when their lease ends. So
what a killed process held is tried by another, and nothing waits in a process.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, Self

import redis
from pydantic import BaseModel, ConfigDict

from producer.batch import Batch
from producer.ledger import DEAD_MAX, DEAD_TTL_S, typed_errors
from worker.callbacks.outbox_scripts import CLAIM, DISABLED, ENABLE, LOG, REPLAY, SETTLE, SHOW
from worker.callbacks.schedule import QUICK_MS, Fate, Pace

MAX_TRIES_KEPT = 20
"""Tries of a callback that its log names; older ones are forgotten."""


class Try(BaseModel):
    """One try: when, what was answered or what went wrong, how long it took, and when the next is
    due, if one is."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    status: int | None = None
    code: str | None = None
    ms: int
    next_at: datetime | None = None


class Told(BaseModel):
    """A callback: of which job or batch it tells, where to, and how that went so far."""

    model_config = ConfigDict(frozen=True)

    webhook_id: str
    job_id: str | None = None
    batch_id: str | None = None
    url: str
    secret_id: str
    owner: str = ""
    """Whose job or batch it is."""
    state: Fate
    created_at: datetime
    tried: int = 0
    due_at: datetime | None = None
    """When it is tried next; None for one that has not been tried, or is not again."""
    tries: tuple[Try, ...] = ()
    body: str | None = None
    """What is sent in place of the result: of one that was replayed from a dead letter."""

    @classmethod
    def of(cls, webhook_id: str, fields: Mapping[str, Any]) -> Self:
        """A callback as Redis keeps it."""
        return cls.model_validate(
            {
                **fields,
                "webhook_id": webhook_id,
                "created_at": _moment(fields["created_ms"]),
                "due_at": _moment(fields["due_ms"]) if "due_ms" in fields else None,
                "tries": json.loads(fields.get("tries", "[]")),
            }
        )


class Claimed(NamedTuple):
    """A callback leased to us: with the job's result (JSON; "" when it is gone), or the batch."""

    told: Told
    host: str
    token: int
    gone: bool
    """Whether its receiver said that it wants no more."""
    result: str
    batch: Batch | None
    pace: Pace
    """Its host's."""


class Outbox:
    """The callbacks of one results store.

    Args:
        client: the results store's Redis, with `decode_responses`.
        lease_s: how long a claimed one is left to who claimed it, seconds.
        result_ttl_s: how long a result is kept on once it has been told of.
        prefix: what keys begin with.

    Every method raises StoreUnavailable when the store cannot be reached.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        lease_s: float = 32,
        result_ttl_s: float = 86_400,
        dead_max: int = DEAD_MAX,
        dead_ttl_s: float = DEAD_TTL_S,
        prefix: str = "captionq:",
    ) -> None:
        self._redis = client
        self._script = cache(client.register_script)
        self._keys = (f"{prefix}job:", f"{prefix}open", f"{prefix}items:")
        self._lease_ms = round(lease_s * 1_000)
        self._result_ttl_ms = round(result_ttl_s * 1_000)
        self._dead_max, self._dead_ttl_s = dead_max, dead_ttl_s

    def claim(self, busy: Collection[str] = (), slowest: Pace = Pace.SLOW) -> Claimed | None:
        """The next one that is due, leased, of a host that is not busy, nor slower than `slowest`;
        None when there is none."""
        reply = self._run(CLAIM, self._lease_ms, int(slowest), *busy)
        if not reply:
            return None
        webhook_id, token, gone, about, result, batch, pace = reply
        fields, counted = _fields(about), _fields(batch)
        return Claimed(
            Told.of(webhook_id, fields),
            fields["host"],
            token,
            bool(gone),
            result,
            Batch.of(fields["batch_id"], counted) if counted else None,
            Pace(pace),
        )

    def settle(
        self,
        claimed: Claimed,
        fate: Fate,
        tried: Try | None = None,
        *,
        wait_s: float | None = None,
        disable: bool = False,
        letter: Mapping[str, str] | None = None,
    ) -> bool:
        """Write down what a try came to.

        Args:
            tried: the try, if one was made.
            wait_s: until the next, of one that stays due.
            disable: nothing is sent to its URL any more.
            letter: fields of a dead letter that is written in the same step.

        Returns:
            False when it is not ours any more: the lease has ended, or its job was replayed.
        """
        tries = (*claimed.told.tries, *([tried] if tried else []))
        kept = json.dumps([one.model_dump(mode="json") for one in tries[-MAX_TRIES_KEPT:]])
        args: tuple[str | int, ...] = (
            claimed.told.webhook_id,
            claimed.token,
            fate.value,
            round((wait_s or 0) * 1_000),
            kept,
            claimed.told.tried + (tried is not None),
            self._result_ttl_ms,
            int(disable),
            "" if tried is None else int(Pace.QUICK if tried.ms < QUICK_MS else Pace.SLOW),
        )
        if letter is not None:
            oldest_ms = round((time.time() - self._dead_ttl_s) * 1_000)
            fields = (text for field in letter.items() for text in field)
            life_ms = round(self._dead_ttl_s * 1_000)
            args = (*args, self._dead_max, oldest_ms, life_ms, *fields)
        return bool(self._run(SETTLE, *args))

    def replay(self, webhook_id: str, fields: Mapping[str, str] | None = None) -> bool:
        """Try one again from the beginning, at once; with `fields` also one that is forgotten.

        Returns:
            False when it is.
        """
        named = (text for field in (fields or {}).items() for text in field)
        return bool(self._run(REPLAY, webhook_id, *named))

    def log(self, limit: int = 50) -> list[Told]:
        """Callbacks, those first to which something happened last."""
        return [Told.of(one, _fields(about)) for one, about in self._run(LOG, limit)]

    def find(self, name: str) -> Told | None:
        """One by its webhook-id, or by the job or batch that it tells of."""
        reply = self._run(SHOW, name)
        return Told.of(reply[0], _fields(reply[1])) if reply else None

    def enable(self, url: str) -> bool:
        """Send to a URL again; False when nothing kept it from that."""
        return bool(self._run(ENABLE, url))

    def disabled(self, limit: int = 50) -> dict[str, datetime]:
        """URLs that nothing is sent to, and since when, the latest first."""
        reply = self._run(DISABLED, limit)
        return {url: _moment(ms) for url, ms in zip(reply[::2], reply[1::2], strict=True)}

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _run(self, script: str, *args: str | int) -> Any:
        with typed_errors():
            return self._script(script)(self._keys, args)


def _fields(reply: Sequence[str]) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _moment(milliseconds: str | float) -> datetime:
    return datetime.fromtimestamp(float(milliseconds) / 1_000, UTC)
