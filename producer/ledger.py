"""How the results store lies in Redis: keys, scripts, records as hashes. No I/O.

`captionq:job:<id>` is a hash with the fields task, state, job, result (both JSON text),
created_at, started_at, finished_at (ISO 8601), worker, attempt, history (JSON: its deliveries), and
code, the error's; callback (JSON), batch_id and owner where the job has them; image_ref where there
is no job, once it has ended.
traceparent is there where jobs are traced (producer/tracing.py).
`captionq:items:<id>` is a hash of the settled images of a chunk that is under way: ItemResults
(JSON) by their index. Its life is the record's, and it is gone when the chunk has ended, unless the
chunk is given up and may be replayed.
`captionq:done:<id>` is the channel on which a job's result is published when it ends;
`captionq:running:<id>` the one on which it is told, as JSON {state, attempt, worker}, when a
delivery is counted (running) or goes back (queued).
`captionq:results` is the stream of results, where that is wanted: job_id, task, state, owner and
result.
`captionq:dead` is the stream of dead letters.
`captionq:open:<queue>` is a sorted set of the keys of jobs that were submitted to a queue and have
not ended, by the moment of the last event (milliseconds of Redis' clock); `captionq:open` is the
set of these queues. Such jobs have two more fields: queue, and opened_ms, when they were submitted
by that clock. What the broker lost is found by them (worker/reconciler.py). A job that was replayed
names in `replayed` the dead letter that it came from.
`captionq:callback:<webhook-id>` is a hash of what is to be told, and how that goes
(worker/callbacks/outbox.py); `captionq:callbacks:<host>` a sorted set of these by when they are
due, `captionq:callbacks` one of the hosts, by the first of each,
`captionq:callbacks:log` one of the latest callbacks, by what happened to them last,
`captionq:callbacks:quick` and `captionq:callbacks:slow` of hosts that were so the last time,
`captionq:callbacks:gone` of URLs that want no more.
Lists of jobs, batches and workers: producer/registry.py.

Written by RedisStore and AsyncRedisStore alike.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import redis

from producer.call import Call
from producer.contract import ItemResult, Job, JobResult, JobState, utcnow
from producer.envelope import Sent
from producer.errors import StoreFull, StoreUnavailable
from producer.listing import LISTED_JOBS
from producer.queues import queue_for
from producer.scripts import (
    CREATE,
    FINISH,
    FORGET,
    GET,
    REOPEN,
    RESULT,
    RETURN_DELIVERY,
    SETTLE,
    START,
    TRACE,
    TRACEPARENT,
)
from producer.store import MAX_HISTORY, Record, Settled, checked_id, checked_terminal
from producer.terms import Terms
from producer.wire import WireJob

CONNECT_TIMEOUT_S = 3.0
SOCKET_TIMEOUT_S = 10.0
HEALTH_CHECK_INTERVAL_S = 10

DEAD_MAX = 10_000
DEAD_TTL_S = 14 * 86_400.0


class Ledger:
    """The calls of a store whose keys begin with `prefix` and live as long as given, in seconds.

    Args:
        listed_jobs: how many of the newest jobs can be listed.
        result_stream: how many results the stream of results keeps, roughly; 0 for no stream.
    """

    def __init__(
        self,
        result_ttl_s: float,
        queued_ttl_s: float,
        prefix: str = "captionq:",
        dead_max: int = DEAD_MAX,
        dead_ttl_s: float = DEAD_TTL_S,
        listed_jobs: int = LISTED_JOBS,
        result_stream: int = 0,
    ) -> None:
        self._result_ttl_ms = round(result_ttl_s * 1000)
        self._queued_ttl_ms = round(queued_ttl_s * 1000)
        self._prefix = prefix
        self._dead_max = dead_max
        self._dead_ttl_s = dead_ttl_s
        self._listed = listed_jobs
        self._stream_max = result_stream

    @property
    def prefix(self) -> str:
        """What all keys and channels begin with."""
        return self._prefix

    def key(self, job_id: str) -> str:
        """The hash of a job."""
        return f"{self._prefix}job:{job_id}"

    def channel(self, job_id: str) -> str:
        """Where a job's result is published."""
        return f"{self._prefix}done:{job_id}"

    def running_channel(self, job_id: str) -> str:
        """Where it is told that a delivery of a job is counted, or goes back."""
        return f"{self._prefix}running:{job_id}"

    def stream_key(self) -> str:
        """The stream of results."""
        return f"{self._prefix}results"

    def job_id(self, channel: str) -> str:
        """The job a channel of results belongs to."""
        return channel.removeprefix(self.channel(""))

    def create(self, job: Job, sent: Sent | None = None) -> Call[Record | None]:
        """See `Store.create`. With `sent`, a new job is sent in the same step: its message goes
        into its queue, in this Redis."""
        job_id = checked_id(job)
        created_at = (job.submitted_at or utcnow()).isoformat()
        queue = queue_for(job.task, job.model, job.lane)
        args = (
            job.task, job.model_dump_json(), created_at, self._queued_ttl_ms, queue,
            self._listed, *Terms.of(job), *(sent or ()),
        )  # fmt: skip
        return Call(CREATE, self._keys(job_id), args, _record_reader(job_id))

    def reopen(self, job: WireJob, entry: str) -> Call[bool]:
        """Queue again a job that failed or is forgotten, as one that was never tried.

        True also when this letter, `entry`, has done so before and the job has not begun since:
        its message may never have been sent. False, and nothing is changed, when the job is under
        way for another reason, has ended well, or was cancelled.
        """
        job_id, created_at = checked_id(job), utcnow().isoformat()
        args = (
            job.task, job.text, created_at, self._queued_ttl_ms, job.queue, entry,
            self._listed, *Terms.read(job_id, job.body, entry),
        )  # fmt: skip
        return Call(REOPEN, self._keys(job_id), args, bool)

    def open_key(self, queue: str | None = None) -> str:
        """The set of queues that have open jobs, or the index of one of them."""
        return f"{self._prefix}open" + (f":{queue}" if queue else "")

    def lock_key(self) -> str:
        """Held by the one worker that reconciles."""
        return f"{self._prefix}reconciler"

    def job_id_of_key(self, key: str) -> str:
        """The job whose record has this key."""
        return key.removeprefix(self.key(""))

    def _keys(self, job_id: str) -> tuple[str, str, str]:
        return self.key(job_id), self.open_key(), f"{self._prefix}items:{job_id}"

    def dead_key(self) -> str:
        """The stream of dead letters."""
        return f"{self._prefix}dead"

    def start(
        self,
        job_id: str,
        task: str,
        attempt: int,
        worker: str,
        at: datetime | None = None,
        only_first: bool = False,
        terms: Terms | None = None,
    ) -> Call[Record]:
        """See `Store.start`."""
        read = _record_reader(job_id)

        def read_existing(reply: Any) -> Record:
            record = read(reply)
            assert record is not None  # noqa: S101 - it was there, or has just been written
            return record

        moment = (at or utcnow()).isoformat()
        event = json.dumps({"state": JobState.RUNNING, "attempt": attempt, "worker": worker})
        args = (
            task, moment, attempt, worker, self._queued_ttl_ms, MAX_HISTORY, int(only_first),
            self._listed, event, *(terms or Terms()),
        )  # fmt: skip
        return Call(START, self._keys(job_id), args, read_existing)

    def return_delivery(self, job_id: str, attempt: int) -> Call[None]:
        """See `Store.return_delivery`."""
        return Call(RETURN_DELIVERY, self._keys(job_id), (attempt,), lambda _: None)

    def settle(self, job_id: str, items: Sequence[ItemResult] = ()) -> Call[Settled]:
        """See `Store.settle`."""
        fields = (text for item in items for text in (item.index, item.model_dump_json()))
        return Call(SETTLE, self._keys(job_id), (self._queued_ttl_ms, *fields), _read_settled)

    def finish(
        self,
        result: JobResult,
        letter: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> Call[JobResult]:
        """See `Store.finish`."""
        job_id = checked_terminal(result).job_id
        args: tuple[str | int, ...] = (
            result.task,
            result.state.value,
            result.model_dump_json(),
            result.attempts,
            utcnow().isoformat(),
            self._result_ttl_ms,
            self.channel(job_id),
            self._queued_ttl_ms,
            result.finished_at.isoformat(),
            self._listed,
            self._stream_max,
            result.error.code.value if result.error else "",
            result.image_ref or "",
            *(terms or Terms()),
        )
        if letter is not None:
            oldest_ms = round((time.time() - self._dead_ttl_s) * 1_000)
            fields = (text for field in letter.items() for text in field)
            life_ms = round(self._dead_ttl_s * 1_000)
            args = (*args, self.dead_key(), self._dead_max, oldest_ms, life_ms, *fields)
        return Call(FINISH, self._keys(job_id), args, JobResult.model_validate_json)

    def get(self, job_id: str) -> Call[Record | None]:
        """See `Store.get`."""
        return Call(GET, self._keys(job_id), (), _record_reader(job_id))

    def result(self, job_id: str) -> Call[JobResult | None]:
        """The result alone, None while there is none."""
        return Call(
            RESULT,
            self._keys(job_id),
            (),
            lambda text: JobResult.model_validate_json(text) if text else None,
        )

    def trace(self, job_id: str, traceparent: str) -> Call[None]:
        """Note which span a job was submitted in, where it has a record; the first is kept."""
        return Call(TRACE, self._keys(job_id), (traceparent,), lambda _: None)

    def traceparent(self, job_id: str) -> Call[str | None]:
        """Which span a job was submitted in; None where that is not known."""
        return Call(TRACEPARENT, self._keys(job_id), (), lambda found: found)

    def forget(self, job: Job) -> Call[None]:
        """See `Store.forget`."""
        return Call(FORGET, self._keys(checked_id(job)), (job.model_dump_json(),), lambda _: None)


def _record_reader(job_id: str) -> Callable[[list[str]], Record | None]:
    def read(reply: list[str]) -> Record | None:
        if not reply:
            return None
        fields: dict[str, Any] = dict(zip(reply[::2], reply[1::2], strict=True))
        if "result" in fields:
            fields["result"] = JobResult.model_validate_json(fields["result"])
        if "history" in fields:
            fields["history"] = json.loads(fields["history"])
        return Record(job_id=job_id, **fields)

    return read


def _read_settled(reply: list[Any]) -> Settled:
    result, kept = reply
    items = map(ItemResult.model_validate_json, kept[1::2])
    return Settled(
        {item.index: item for item in items},
        JobResult.model_validate_json(result) if result else None,
    )


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn the errors of redis-py into the store's own.

    Raises:
        StoreFull: Redis refuses to write for lack of memory.
        StoreUnavailable: any other fault of Redis or the way there.
    """
    try:
        yield
    except redis.OutOfMemoryError as exc:
        raise StoreFull("The results store (Redis) is full.") from exc
    except redis.RedisError as exc:
        raise StoreUnavailable(f"The results store (Redis) cannot be reached: {exc}") from exc
