"""What lies in Redis round the records: which jobs there are, batches, workers. No I/O.

`captionq:jobs` is a sorted set of the ids of the newest jobs, by the microsecond (Redis' clock) at
which they were recorded.
`captionq:batch:<id>` is a hash: owner, closed, total, a count for each state, created_ms,
finished_ms, traceparent where it is traced, and callback, which is due when the batch ends.
`captionq:counted:<id>` is a hash of its jobs and the states in which they are counted: so each
counts once, whatever becomes of it. The scripts that create, start, finish and forget jobs count
them.
`captionq:worker:<name>` is what a worker says of itself (JSON), for as long as it is believed;
`captionq:workers` is the set of their names.

Written by RedisStore and AsyncRedisStore alike.
"""

from typing import Any

from producer.batch import Batch
from producer.call import Call
from producer.callback import Callback
from producer.listing import (
    LOOKED_AT,
    SHOWN_BYTES,
    Page,
    Summary,
    Wanted,
    checked_cursor,
    checked_limit,
    shown,
)
from producer.presence import LIFE_S, WorkerFacts
from producer.registry_scripts import (
    ABSENT,
    BATCH,
    CLOSE_BATCH,
    LISTED,
    OPEN_BATCH,
    PRESENT,
    WORKERS,
)
from producer.scripts import TRACE, TRACEPARENT
from producer.terms import due


class Registry:
    """The calls of a store whose keys begin with `prefix`; batches live for `queued_ttl_s`, in
    seconds, from the last that happened to them."""

    def __init__(self, queued_ttl_s: float, prefix: str = "captionq:") -> None:
        self._life_ms = round(queued_ttl_s * 1_000)
        self._prefix = prefix
        self._keys = (f"{prefix}job:", f"{prefix}open", f"{prefix}items:")

    def listed(self, wanted: Wanted, before: str | None, limit: int) -> Call[Page]:
        """Some of the jobs that are wanted, of the LOOKED_AT next ones.

        Raises:
            ValueError: for a cursor that no page gave, or a limit out of range.
        """
        args = (
            checked_cursor(before),
            checked_limit(limit),
            LOOKED_AT,
            wanted.state or "",
            wanted.owner or "",
            wanted.batch_id or "",
            SHOWN_BYTES,
        )
        return Call(LISTED, self._keys, args, _read_page)

    def open_batch(
        self, batch_id: str, callback: Callback | None = None, owner: str | None = None
    ) -> Call[Batch]:
        """See `Store.open_batch`."""
        told = due(callback, f"batch {batch_id}") if callback else ""
        args = (batch_id, told, owner or "", self._life_ms)
        return Call(OPEN_BATCH, self._keys, args, lambda reply: Batch.of(batch_id, _fields(reply)))

    def close_batch(self, batch_id: str) -> Call[Batch | None]:
        """See `Store.close_batch`."""
        return Call(CLOSE_BATCH, self._keys, (batch_id,), lambda reply: _batch(batch_id, reply))

    def batch(self, batch_id: str) -> Call[Batch | None]:
        """See `Store.batch`."""
        return Call(BATCH, self._keys, (batch_id,), lambda reply: _batch(batch_id, reply))

    def trace_batch(self, batch_id: str, traceparent: str) -> Call[None]:
        """Keep the span that a batch is submitted in, in its record, if there is one."""
        return Call(TRACE, self._batch_keys(batch_id), (traceparent,), lambda _: None)

    def batch_traceparent(self, batch_id: str) -> Call[str | None]:
        """The span that a batch was submitted in; None for none."""
        return Call(TRACEPARENT, self._batch_keys(batch_id), (), lambda found: found)

    def present(self, facts: WorkerFacts, life_s: float = LIFE_S) -> Call[None]:
        """See `Store.present`."""
        args = (facts.name, facts.model_dump_json(), round(life_s * 1_000))
        return Call(PRESENT, self._keys, args, lambda _: None)

    def absent(self, name: str) -> Call[None]:
        """See `Store.absent`."""
        return Call(ABSENT, self._keys, (name,), lambda _: None)

    def workers(self) -> Call[list[WorkerFacts]]:
        """See `Store.workers`."""
        return Call(WORKERS, self._keys, (), _read_workers)

    def _batch_keys(self, batch_id: str) -> tuple[str, str, str]:
        return (f"{self._prefix}batch:{batch_id}", *self._keys[1:])


def _fields(reply: list[str]) -> dict[str, Any]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _batch(batch_id: str, reply: list[str]) -> Batch | None:
    return Batch.of(batch_id, _fields(reply)) if reply else None


def _read_page(reply: list[Any]) -> Page:
    found, cursor = reply
    return Page([_summary(*one) for one in found], cursor or None)


def _summary(job_id: str, job: str, *about: str) -> Summary:
    state, owner, batch_id, task, created_at, finished_at, code, image_ref = (
        one or None for one in about
    )
    return Summary.model_validate(
        {
            "job_id": job_id,
            "task": task or "",
            "state": state,
            "created_at": created_at,
            "finished_at": finished_at,
            "image_ref": image_ref or shown(job),
            "code": code,
            "owner": owner,
            "batch_id": batch_id,
        }
    )


def _read_workers(reply: list[str]) -> list[WorkerFacts]:
    found = [WorkerFacts.model_validate_json(one) for one in reply]
    return sorted(found, key=lambda one: one.name)
