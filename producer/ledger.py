"""How the results store lies in Redis: keys, scripts, records as hashes. No I/O.

`captionq:job:<id>` is a hash with the fields task, state, job, result (both JSON text),
created_at, started_at (ISO 8601), worker, attempt and history (JSON: its deliveries).
`captionq:done:<id>` is the channel on which a job's result is published when it ends.
`captionq:dead` is the stream of dead letters. Written by RedisStore and AsyncRedisStore alike.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import redis

from producer.contract import Job, JobResult, utcnow
from producer.errors import StoreFull, StoreUnavailable
from producer.store import MAX_HISTORY, Record, checked_id, checked_terminal

T = TypeVar("T")

CONNECT_TIMEOUT_S = 3.0
SOCKET_TIMEOUT_S = 10.0
HEALTH_CHECK_INTERVAL_S = 10

DEAD_MAX = 10_000
DEAD_TTL_S = 14 * 86_400.0

_WRITE = """
local function write(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then
        if string.find(reply.err, 'OOM', 1, true) then  -- Redis 6 puts words before the code
            return redis.error_reply('OOM the results store is full')
        end
        return reply
    end
end
"""

CREATE = (
    _WRITE
    + """
local known = redis.call('HGETALL', KEYS[1])
if #known > 0 then
    if redis.call('HGET', KEYS[1], 'job') == ARGV[2] then return {} end
    return known
end
local refused = write('HSET', KEYS[1], 'state', 'queued', 'task', ARGV[1], 'job', ARGV[2],
    'created_at', ARGV[3])
if refused then return refused end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {}
"""
)

START = (
    _WRITE
    + """
local later = tonumber(redis.call('HGET', KEYS[1], 'attempt') or 0) > tonumber(ARGV[3])
if redis.call('HEXISTS', KEYS[1], 'result') == 0 and not later then
    local history = cjson.decode(redis.call('HGET', KEYS[1], 'history') or '[]')
    local last = history[#history]
    if not (last and last.at == ARGV[2] and last.worker == ARGV[4]) then  -- not this call, repeated
        table.insert(history, {at = ARGV[2], worker = ARGV[4], attempt = tonumber(ARGV[3])})
    end
    if #history > tonumber(ARGV[6]) then table.remove(history, 1) end
    local refused = write('HSET', KEYS[1], 'state', 'running', 'started_at', ARGV[2],
        'attempt', ARGV[3], 'worker', ARGV[4], 'history', cjson.encode(history))
    if refused then return refused end
    redis.call('HSETNX', KEYS[1], 'created_at', ARGV[2])
    redis.call('HSETNX', KEYS[1], 'task', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return redis.call('HGETALL', KEYS[1])
"""
)

RETURN_DELIVERY = """
local history = cjson.decode(redis.call('HGET', KEYS[1], 'history') or '[]')
if redis.call('HEXISTS', KEYS[1], 'result') == 1 then return end
for i = #history, 1, -1 do
    if history[i].attempt == tonumber(ARGV[1]) then
        table.remove(history, i)
        redis.call('HSET', KEYS[1], 'state', 'queued', 'history',
            #history > 0 and cjson.encode(history) or '[]')
        return
    end
end
"""

FINISH = (
    _WRITE
    + """
local kept = redis.call('HGET', KEYS[1], 'result')
if kept then return kept end
local refused = write('HSET', KEYS[1], 'state', ARGV[2], 'result', ARGV[3], 'attempt', ARGV[4])
if refused then return refused end
redis.call('HSETNX', KEYS[1], 'task', ARGV[1])
redis.call('HSETNX', KEYS[1], 'created_at', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PUBLISH', ARGV[7], ARGV[3])
if ARGV[8] then
    redis.call('XADD', ARGV[8], 'MAXLEN', '~', ARGV[9], '*',
        'deliveries', redis.call('HGET', KEYS[1], 'history') or '[]', unpack(ARGV, 11))
    redis.call('XTRIM', ARGV[8], 'MINID', '~', ARGV[10])
end
return ARGV[3]
"""
)

GET = "return redis.call('HGETALL', KEYS[1])"

RESULT = "return redis.call('HGET', KEYS[1], 'result')"

FORGET = """
local record = redis.call('HMGET', KEYS[1], 'state', 'job')
if record[1] == 'queued' and record[2] == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One atomic step on one record: a script, its key and arguments, and how to read its reply."""

    script: str
    key: str
    args: tuple[str | int, ...]
    read: Callable[[Any], T]


class Ledger:
    """The calls of a store whose keys begin with `prefix` and live as long as given, in seconds."""

    def __init__(
        self,
        result_ttl_s: float,
        queued_ttl_s: float,
        prefix: str,
        dead_max: int = DEAD_MAX,
        dead_ttl_s: float = DEAD_TTL_S,
    ) -> None:
        self._result_ttl_ms = round(result_ttl_s * 1000)
        self._queued_ttl_ms = round(queued_ttl_s * 1000)
        self._prefix = prefix
        self._dead_max = dead_max
        self._dead_ttl_s = dead_ttl_s

    def key(self, job_id: str) -> str:
        """The hash of a job."""
        return f"{self._prefix}job:{job_id}"

    def channel(self, job_id: str) -> str:
        """Where a job's result is published."""
        return f"{self._prefix}done:{job_id}"

    def job_id(self, channel: str) -> str:
        """The job a channel belongs to."""
        return channel.removeprefix(self.channel(""))

    def create(self, job: Job) -> Call[Record | None]:
        """See `Store.create`."""
        job_id = checked_id(job)
        created_at = (job.submitted_at or utcnow()).isoformat()
        args = (job.task, job.model_dump_json(), created_at, self._queued_ttl_ms)
        return Call(CREATE, self.key(job_id), args, _record_reader(job_id))

    def dead_key(self) -> str:
        """The stream of dead letters."""
        return f"{self._prefix}dead"

    def start(
        self, job_id: str, task: str, attempt: int, worker: str, at: datetime | None = None
    ) -> Call[Record]:
        """See `Store.start`."""
        read = _record_reader(job_id)

        def read_existing(reply: Any) -> Record:
            record = read(reply)
            assert record is not None  # noqa: S101 - the script has just written it
            return record

        moment = (at or utcnow()).isoformat()
        args = (task, moment, attempt, worker, self._queued_ttl_ms, MAX_HISTORY)
        return Call(START, self.key(job_id), args, read_existing)

    def return_delivery(self, job_id: str, attempt: int) -> Call[None]:
        """See `Store.return_delivery`."""
        return Call(RETURN_DELIVERY, self.key(job_id), (attempt,), lambda _: None)

    def finish(self, result: JobResult, letter: Mapping[str, str] | None = None) -> Call[JobResult]:
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
        )
        if letter is not None:
            oldest_ms = round((time.time() - self._dead_ttl_s) * 1_000)
            fields = (text for field in letter.items() for text in field)
            args = (*args, self.dead_key(), self._dead_max, oldest_ms, *fields)
        return Call(FINISH, self.key(job_id), args, JobResult.model_validate_json)

    def get(self, job_id: str) -> Call[Record | None]:
        """See `Store.get`."""
        return Call(GET, self.key(job_id), (), _record_reader(job_id))

    def result(self, job_id: str) -> Call[JobResult | None]:
        """The result alone, None while there is none."""
        return Call(
            RESULT,
            self.key(job_id),
            (),
            lambda text: JobResult.model_validate_json(text) if text else None,
        )

    def forget(self, job: Job) -> Call[None]:
        """See `Store.forget`."""
        key = self.key(checked_id(job))
        return Call(FORGET, key, (job.model_dump_json(),), lambda _: None)


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
