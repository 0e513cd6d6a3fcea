"""The stream of results, read: by one reader from where it likes, or by a consumer group together.

Workers and producers write to it where RESULT_STREAM is set (producer/ledger.py). A consumer group
(Redis streams) hands each result to one of its consumers, and again to another until it is
acknowledged: whoever acknowledges a result once it is written down loses none, and may have one
twice.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.ledger import CONNECT_TIMEOUT_S, SOCKET_TIMEOUT_S, Ledger, typed_errors
from producer.redis_at import redis_at

NEW, START = "$", "0"
"""Where to begin: with what comes from now on, or with the oldest there is."""

FIRST = "0-0"

BATCH = 100
BLOCK_S = 1.0
CLAIM_AFTER_S = 60.0
STREAM_LIFE_S = 7 * 86_400
"""Of a stream that nothing was written to yet."""


Raw = tuple[str, dict[str, str]]


class Entry(NamedTuple):
    """One result. `entry` is its place in the stream; `result` its JSON."""

    entry: str
    job_id: str
    task: str
    state: str
    owner: str
    result: str

    @classmethod
    def of(cls, entry: str, fields: dict[str, str]) -> Self:
        """One as it lies in the stream; fields unknown here are left out."""
        return cls(entry, *(fields.get(name, "") for name in cls._fields[1:]))


class ResultStream:
    """Reads results, in order.

    Args:
        url: the results store's Redis.
        begin: NEW, START, or an entry: behind that. Of a group, where it begins when it is new.
        group, consumer: read as this consumer of this group; without a group alone.
        claim_after_s: how long another consumer may keep a result unacknowledged.
        prefix: what keys begin with.

    Every method raises StoreUnavailable when the store cannot be reached; calling it again goes on
    where it was.
    """

    def __init__(
        self,
        url: str,
        *,
        begin: str = NEW,
        group: str | None = None,
        consumer: str = "captionq",
        claim_after_s: float = CLAIM_AFTER_S,
        prefix: str = "captionq:",
    ) -> None:
        self._redis = redis_at(
            url,
            decode_responses=True,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._key = Ledger(1, 1, prefix).stream_key()
        self._group, self._consumer, self._begin = group, consumer, begin
        self._claim_after_s = claim_after_s
        self._after = begin
        self._own: str | None = START if group else None
        """Behind which own results that were not acknowledged are still to be asked for."""
        self._claim_from, self._claim_at_s = FIRST, 0.0
        self._begun = False
        self._written: list[str] = []

    def read(self, block_s: float = BLOCK_S) -> list[Entry]:
        """The next results; none after so many seconds without. Of a group first those that this
        consumer was given before and did not acknowledge, and those of consumers that died."""
        with typed_errors():
            if not self._group:
                return self._alone(block_s)
            self._acknowledge()
            return self._of_group(block_s)

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Say that these need not be given to anybody of the group again; while the store is away
        that is remembered."""
        if self._group:
            self._written += [one.entry for one in entries]
            with typed_errors():
                self._acknowledge()

    def exists(self) -> bool:
        """Whether anything was written to it lately."""
        with typed_errors():
            return bool(self._redis.exists(self._key))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _alone(self, block_s: float) -> list[Entry]:
        if self._after == NEW:  # so that nothing is missed between two calls
            last: Any = self._redis.xrevrange(self._key, count=1)
            self._after = last[0][0] if last else START
        found = self._redis.xread({self._key: self._after}, BATCH, _ms(block_s))
        entries = [Entry.of(entry, fields) for entry, fields in _raw(found)]
        if entries:
            self._after = entries[-1].entry
        return entries

    def _of_group(self, block_s: float) -> list[Entry]:
        try:
            return self._given(block_s)
        except redis.ResponseError as exc:
            if not str(exc).startswith("NOGROUP"):
                raise
            self._make_group(START if self._begun else self._begin)  # it expired with its stream
            return self._given(block_s)

    def _given(self, block_s: float) -> list[Entry]:
        while self._own is not None:
            found = self._asked(self._own)
            self._own = found[-1][0] if found else None
            if entries := self._kept(found):
                return entries
        self._begun = True
        if time.monotonic() >= self._claim_at_s and (claimed := self._claimed()):
            return claimed
        return self._kept(self._asked(">", _ms(block_s)))

    def _asked(self, after: str, block_ms: int | None = None) -> list[Raw]:
        found = self._redis.xreadgroup(
            str(self._group), self._consumer, {self._key: after}, BATCH, block_ms
        )
        return _raw(found)

    def _kept(self, found: list[Raw]) -> list[Entry]:
        """Results of a reply. Those that were trimmed away before they were read are let go."""
        self._written += [entry for entry, fields in found if not fields]
        return [Entry.of(entry, fields) for entry, fields in found if fields]

    def _claimed(self) -> list[Entry]:
        reply: Any = self._redis.xautoclaim(
            self._key,
            str(self._group),
            self._consumer,
            _ms(self._claim_after_s),
            self._claim_from,
            BATCH,
        )
        self._claim_from = reply[0]
        if self._claim_from == FIRST:  # all have been looked at
            self._claim_at_s = time.monotonic() + self._claim_after_s / 2
        return [Entry.of(entry, fields) for entry, fields in reply[1] if fields]

    def _acknowledge(self) -> None:
        if self._written:
            self._redis.xack(self._key, str(self._group), *self._written)
            self._written = []

    def _make_group(self, begin: str) -> None:
        try:
            self._redis.xgroup_create(self._key, str(self._group), begin, mkstream=True)
        except redis.ResponseError as exc:
            if not str(exc).startswith("BUSYGROUP"):
                raise
        if self._redis.ttl(self._key) == -1:
            self._redis.expire(self._key, STREAM_LIFE_S)


def _raw(found: Any) -> list[Raw]:
    return [one for _, batch in found or () for one in batch]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1_000))
