"""Dead letters: what was given up, kept for a while with its reason, to be looked at or replayed.

A Redis stream beside the results (`captionq:dead`), bounded by length and age. Jobs that end for
a fault of their own (no such image, an invalid job) are not in it: trying again would be vain.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from producer.contract import JOB_MODELS, JobFailed, JobResult, parse_job, utcnow
from producer.errors import TRANSIENT, ErrorCode
from producer.ledger import DEAD_MAX, DEAD_TTL_S, Ledger, typed_errors
from producer.redis_at import redis_at
from producer.signing import BadSignature, Verifier
from producer.store import Delivered
from producer.wire import WireJob
from worker.callbacks.outbox import Outbox
from worker.retry import SECOND_CHANCE

GIVEN_UP = (
    TRANSIENT
    | SECOND_CHANCE
    | {ErrorCode.JOB_POISONED, ErrorCode.SCHEMA_UNSUPPORTED, ErrorCode.SIGNATURE_INVALID}
)
"""Codes of jobs that might end otherwise another time."""

MAX_REASON = 1_000
"""Characters of a reason that are kept."""

ENTRY = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
"""An id in a stream; a job's id may look like one too."""

_PAGE = 500


class NotReplayable(ValueError):  # noqa: N818 - it says what the letter is
    """The letter holds no job that could run: what came was malformed, its time has run out, or
    workers would refuse its signature."""


class DeadLetter(BaseModel):
    """One letter. `job` is the job's JSON text; for a malformed message that is None, and `raw`
    is what came."""

    model_config = ConfigDict(frozen=True)

    entry: str
    """Its id in the stream: milliseconds since 1970, and a number."""
    job_id: str = ""
    task: str = ""
    code: str
    reason: str = ""
    queue: str = ""
    attempts: int = 0
    deliveries: tuple[Delivered, ...] = ()
    at: datetime
    job: str | None = None
    raw: str | None = None
    callback: str | None = None
    """Of one that was not accepted: what is sent once more, as JSON (worker/callbacks/courier.py).
    """

    @classmethod
    def of(cls, entry: str, fields: Mapping[str, str]) -> Self:
        """A letter as it lies in the stream."""
        deliveries = json.loads(fields.get("deliveries", "[]"))
        return cls(entry=entry, **{**fields, "deliveries": deliveries})

    def replayed(self, verifier: Verifier | None = None) -> WireJob:
        """The job to send again, under the id that it had; one that is signed just as it came.

        Nothing is signed here: what lies in Redis need not be a producer's.

        Raises:
            NotReplayable: there is none in this letter, it would expire at once, or be refused.
            JobFailed: it is of a contract that this version does not know.
        """
        if self.job is None:
            raise NotReplayable(f"it holds no job: {self.reason}")
        if self.task not in JOB_MODELS:
            raise NotReplayable(f"its task is unknown here: {self.task!r}")
        job = parse_job(self.task, self.job)
        if job.expires_at is not None and job.expires_at <= utcnow():
            raise NotReplayable(f"its job was to end by {job.expires_at:%Y-%m-%d %H:%M %Z}")
        body = json.loads(self.job)
        if verifier is not None:
            try:
                verifier.verified(self.task, self.job_id, body)
            except BadSignature as exc:
                raise NotReplayable(f"workers would refuse its job: {exc}") from exc
        if job.signature is not None and job.job_id == self.job_id:
            return WireJob(self.task, body)
        new = {"job_id": self.job_id, "submitted_at": utcnow(), "signature": None}
        return WireJob.of(job.model_copy(update=new))


def letter(
    result: JobResult, failure: JobFailed, payload: Any, queue: str | None, reason: str
) -> dict[str, str] | None:
    """The fields of a failed job's dead letter; None when its failure is final.

    Args:
        payload: the job as it came.
        reason: what the worker's log says of it.
    """
    if failure.code not in GIVEN_UP:
        return None
    return {
        "job_id": result.job_id,
        "task": result.task,
        "code": failure.code.value,
        "reason": _kept(reason),
        "queue": _kept(str(queue or "")),
        "attempts": str(result.attempts),
        "at": (result.finished_at or utcnow()).isoformat(),
        **_came(payload),
    }


def _came(payload: Any) -> dict[str, str]:
    """What a letter keeps of a job: `job`, its JSON text, or `raw`, what else came (kombu reads
    moments and bytes from JSON, for one)."""
    try:
        return {"job": json.dumps(payload)}
    except (TypeError, ValueError, RecursionError):
        return {"raw": _kept(ascii(payload))}


def _kept(reason: str) -> str:
    """What is kept of a reason, as text that can be stored: a fault may quote half a character."""
    return reason[:MAX_REASON].encode(errors="backslashreplace").decode()


class DeadLetters:
    """The letters in one results store.

    Args:
        url: the results store's Redis.
        prefix: what its keys begin with.
        verifier: what workers tell genuine jobs by; others are not replayed.

    Every method raises StoreUnavailable when the store cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "captionq:",
        dead_max: int = DEAD_MAX,
        dead_ttl_s: float = DEAD_TTL_S,
        queued_ttl_s: float = 604_800,
        verifier: Verifier | None = None,
    ) -> None:
        self._verifier = verifier
        self._ledger = Ledger(0, queued_ttl_s, prefix)
        self._key = self._ledger.dead_key()
        self._max = dead_max
        self._ttl_s = dead_ttl_s
        self._redis = redis_at(
            url, decode_responses=True, socket_timeout=5, socket_connect_timeout=3
        )

    def bury(self, raw: str, queue: str, reason: str) -> None:
        """Keep a message that no job can be read from."""
        self.keep(
            {
                "code": ErrorCode.JOB_INVALID.value,
                "reason": _kept(reason),
                "queue": queue,
                "at": utcnow().isoformat(),
                "raw": raw,
            }
        )

    def keep(self, fields: Mapping[str, str]) -> None:
        """Keep a letter of these fields, whatever becomes of the job that it names."""
        oldest = (utcnow() - timedelta(seconds=self._ttl_s)).timestamp()
        with typed_errors(), self._redis.pipeline() as step:
            step.xadd(self._key, dict(fields), maxlen=self._max, approximate=True)  # type: ignore[arg-type]
            step.xtrim(self._key, minid=str(round(oldest * 1_000)), approximate=True)
            step.pexpire(self._key, round(self._ttl_s * 1_000))
            step.execute()

    def find(
        self,
        codes: Collection[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[DeadLetter]:
        """Letters, the latest first, of any of these codes (all when empty), within these times."""
        newest = str(round(until.timestamp() * 1_000)) if until else "+"
        oldest = str(round(since.timestamp() * 1_000)) if since else "-"
        found = 0
        while True:
            with typed_errors():
                page: Any = self._redis.xrevrange(self._key, newest, oldest, count=_PAGE)
            for entry, fields in page:
                if not codes or fields.get("code") in codes:
                    yield DeadLetter.of(entry, fields)
                    found += 1
                    if found == limit:
                        return
            if len(page) < _PAGE:
                return
            newest = f"({page[-1][0]}"

    def get(self, name: str) -> DeadLetter | None:
        """The letter of this entry, or the latest of this job id: of the job, if there is one, or
        else of its callback."""
        if ENTRY.fullmatch(name):
            with typed_errors():
                page: Any = self._redis.xrange(self._key, name, name)
            if page:
                return DeadLetter.of(*page[0])
        callback = None
        for one in self.find():
            if one.job_id == name:
                if one.callback is None:
                    return one
                callback = callback or one
        return callback

    def replay(self, one: DeadLetter, send: Callable[[WireJob], object]) -> bool:
        """Queue a letter's job again, as if it had never been tried, and remove the letter.

        A callback is due again in place of a job.

        Its record is opened, then the message sent, then the letter removed: what is interrupted
        can be done again. False when the job has ended well, was cancelled, or is under way since
        the letter was written; that is left as it is, and the letter removed.

        Raises:
            NotReplayable, JobFailed: see `DeadLetter.replayed`.
        """
        if one.callback is not None:
            again = json.loads(one.callback)
            opened = Outbox(self._redis, prefix=self._ledger.prefix).replay(
                again.pop("webhook_id"), again
            )
            self.remove(one.entry)
            return opened
        job = one.replayed(self._verifier)
        reopen = self._ledger.reopen(job, one.entry)
        with typed_errors():
            script = self._redis.register_script(reopen.script)
            opened = reopen.read(script(reopen.keys, reopen.args))
        if opened:
            send(job)
        self.remove(one.entry)
        return opened

    def remove(self, *entries: str) -> int:
        """Remove letters; how many there were."""
        if not entries:
            return 0
        with typed_errors():
            return int(self._redis.xdel(self._key, *entries))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
