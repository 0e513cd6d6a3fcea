"""What the broker's Redis holds of a job: waiting, delayed, or in flight. Reads alone."""

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import redis

from worker.inflight import Keys
from worker.message import MAX_RETRIES, delayed_name

PRIORITY_STEPS = (0, 3, 6, 9)
SEP = "\x06\x16"
"""kombu's defaults: a queue has a list for each step of priority."""

FOREIGN = {"decode_responses": True, "encoding_errors": "backslashreplace"}
"""Options of a client that reads what anybody may have written: bytes that are no text, halves of
characters in ids."""

LOOKED_AT = 100
"""Messages that are next in line, looked at for the oldest one."""

SEARCHED = 10_000
"""Messages that are next in line, looked through for a job that seems lost."""

_PAGE = 1_000


class Backlog:
    """The queues of one broker.

    Args:
        client: of the broker's Redis, with FOREIGN.
        prefix: kombu's `global_keyprefix`.

    Every method raises redis.RedisError when the broker cannot be reached.
    """

    def __init__(self, client: redis.Redis, prefix: str = "") -> None:
        self._redis = client
        self._prefix = prefix
        self._keys = Keys(prefix)

    def next_in_line(self, queue: str) -> list[list[str]]:
        """The ids of the messages next in line, a list for each list that is not empty.

        Messages without an id are left out: a list may be empty for want of any.
        """
        with self._redis.pipeline(transaction=False) as pipeline:
            for name in self._lists(queue):
                pipeline.lrange(name, -LOOKED_AT, -1)
            lists: list[list[str]] = pipeline.execute()
        return [_ids(each) for each in lists if each]

    def waiting(self, queue: str) -> set[str]:
        """The ids of the SEARCHED messages next in line in each list.

        What was taken and came back lies there, in any order; all behind it is first in, first
        out. Read towards the end that is taken from, so that what moves up meanwhile is met again.
        """
        found: set[str] = set()
        for name in self._lists(queue):
            length: Any = self._redis.llen(name)
            for behind in range(min(length, SEARCHED), 0, -_PAGE):
                page: Any = self._redis.lrange(name, -behind, min(-1, _PAGE - behind - 1))
                found.update(_ids(page))
        return found

    def _lists(self, queue: str) -> list[str]:
        name = f"{self._prefix}{queue}"
        return [f"{name}{SEP}{step}" if step else name for step in PRIORITY_STEPS]

    def delayed(self, ids: Sequence[str]) -> set[str]:
        """Which of these wait for their moment, in whatever attempt."""
        names = [delayed_name(one, retries) for one in ids for retries in range(MAX_RETRIES + 1)]
        with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.zscore(self._keys.delayed, name)
            scores = pipeline.execute()
        found = (name for name, score in zip(names, scores, strict=True) if score is not None)
        return {name.rpartition(":")[0] for name in found}

    def in_flight(self) -> set[str]:
        """The ids of all messages that some worker holds."""
        entries: Any = self._redis.hscan_iter(self._keys.inflight, count=500)
        return set(_ids(entry.partition("\n")[2] for _, entry in entries))


def _ids(raws: Iterable[str]) -> list[str]:
    return [found for raw in raws if (found := job_id_of(raw))]


def job_id_of(raw: str) -> str | None:
    """The job a message is of: our client gives a message the id of its job. None for others."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return str(json.loads(raw)["headers"]["id"])
    return None


def oldest_ms(opened_ms: Sequence[Sequence[float | None]]) -> float:
    """When the oldest waiting job of a queue was submitted, given those that are next in line.

    Infinite when nothing waits; minus infinite when that cannot be told, because none of those
    next in line in some list is known.

    >>> oldest_ms([]), oldest_ms([[None, 5.0, 3.0], [4.0]]), oldest_ms([[1.0], [None]])
    (inf, 3.0, -inf)
    """
    firsts = [min((ms for ms in each if ms is not None), default=-math.inf) for each in opened_ms]
    return min(firsts, default=math.inf)
