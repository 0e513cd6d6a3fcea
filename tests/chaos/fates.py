"""What is to become of a job: drawn from a seed, and told to the worker by the job itself.

A fate travels as the job's prompt, so that the wrapped stages and the stand-in engine of a worker
process (tests/chaos/app.py) know what to do, whoever sent the job. No I/O.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeVar

from producer.callback import Callback
from producer.contract import CaptionJob, CaptionOptions
from worker.retry import MAX_ATTEMPTS

T = TypeVar("T", bound=StrEnum)

CALLBACKS = "callbacks"
"""Among the places: who is told of jobs with a callback."""


class Kind(StrEnum):
    """How a job goes."""

    NORMAL = "normal"
    BUSY = "busy"  # its host answers 503 once
    MISSING = "missing"  # its image is not there
    POISON = "poison"  # its worker dies each time it is run
    GREEDY = "greedy"  # no batch of more than `limit` fits with it
    STUCK_DECODE = "stuck_decode"  # its image is never decoded
    STUCK_DEVICE = "stuck_device"  # its first batch never ends
    NEWER = "newer"  # its contract is newer than this one


class Source(StrEnum):
    """Where a job's image lies."""

    FILE = "file"
    HTTP = "http"
    S3 = "s3"


class Sender(StrEnum):
    """Who sends a job."""

    CLIENT = "client"  # producer.Client
    CELERY = "celery"  # a plain Celery client, to the default queue
    DELAYED = "delayed"  # a plain Celery client, with a countdown


@dataclass(frozen=True)
class Fate:
    """How a job goes, how long it works (milliseconds), what batch fits with it, and its number."""

    kind: Kind
    work_ms: int = 0
    limit: int = 0
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.work_ms} {self.limit} {self.number}"

    @classmethod
    def of(cls, prompt: str | None) -> Self:
        """Read a prompt; jobs that were not drawn here are normal."""
        words = (prompt or "").split()
        if len(words) != 4 or words[0] not in set(Kind):
            return cls(Kind.NORMAL)
        return cls(Kind(words[0]), *map(int, words[1:]))


@dataclass(frozen=True)
class Errand:
    """One job as the producers are to send it. `delay_s` is a countdown, `priority` Celery's. A
    receiver is to hear of those with a `callback`."""

    job_id: str
    fate: Fate
    source: Source
    sender: Sender
    priority: int = 0
    delay_s: float = 0.0
    callback: bool = False

    def job(self, places: Mapping[str, str]) -> CaptionJob:
        """The job; `places` gives the URI that images of a kind, or else of a source, begin with.

        A NEWER one is still to be marked as such: this contract cannot say it.
        """
        place = places.get(self.fate.kind, places[self.source])
        return CaptionJob(
            job_id=self.job_id,
            image=place.format(job_id=self.job_id),
            options=CaptionOptions(prompt=str(self.fate)),
            callback=Callback(url=places[CALLBACKS]) if self.callback else None,
        )

    @property
    def outcomes(self) -> frozenset[str]:
        """How the job may end: `succeeded`, or the code it fails with."""
        match self.fate.kind:
            case Kind.MISSING:
                return frozenset({"file_not_found"})
            case Kind.POISON:
                return frozenset({"job_poisoned"})
            case Kind.STUCK_DECODE:
                return frozenset({"decode_timeout"})
            case Kind.NEWER:
                return frozenset({"succeeded", "schema_unsupported"})
        return frozenset(
            {"succeeded"} | ({"s3_unavailable"} if self.source is Source.S3 else set())
        )

    @property
    def tries(self) -> int:
        """How often it is run when no fault befalls it."""
        if self.source is Source.S3:  # its one fault is S3's, that may last for all tries
            return MAX_ATTEMPTS
        return 2 if self.fate.kind is Kind.BUSY else 1


@dataclass(frozen=True)
class Mix:
    """How many of a thousand jobs are of each kind, source and sender, and have a callback; the
    rest are normal, from files, by our client. `median_ms` and `longest_ms` are what half and all
    of them work at most."""

    busy: float = 10
    missing: float = 10
    poison: float = 0.4
    greedy: float = 10
    stuck_decode: float = 0.4
    stuck_device: float = 0.2
    newer: float = 0.6
    http: float = 100
    s3: float = 50
    celery: float = 150
    delayed: float = 50
    callback: float = 300
    median_ms: int = 200
    longest_ms: int = 2_000

    @property
    def by_kind(self) -> dict[Kind, float]:
        """The kinds that are not normal."""
        return {kind: getattr(self, kind) for kind in Kind if kind is not Kind.NORMAL}


def draw(rng: random.Random, number: int, mix: Mix) -> Errand:
    """The `number`-th job of a series."""
    kind = _pick(rng, mix.by_kind) or Kind.NORMAL
    work_ms = min(mix.longest_ms, round(rng.lognormvariate(math.log(mix.median_ms), 1)))
    source = _pick(rng, {Source.HTTP: mix.http, Source.S3: mix.s3}) or Source.FILE
    sender = _pick(rng, {Sender.CELERY: mix.celery, Sender.DELAYED: mix.delayed})
    sender = sender or Sender.CLIENT
    if kind is not Kind.NORMAL:
        source = Source.HTTP if kind is Kind.BUSY else Source.FILE
    if kind is Kind.NEWER:
        sender = Sender.CELERY
    return Errand(
        job_id=f"{number:07d}-{kind.replace('_', '-')}-{rng.getrandbits(32):08x}",
        fate=Fate(kind, work_ms, rng.randint(1, 3), number),
        source=source,
        sender=sender,
        priority=0 if sender is Sender.CLIENT else rng.choice((0, 0, 3, 6, 9)),
        delay_s=round(rng.uniform(0.5, 20), 1) if sender is Sender.DELAYED else 0.0,
        callback=rng.uniform(0, 1_000) < mix.callback,
    )


def _pick(rng: random.Random, per_mille: Mapping[T, float]) -> T | None:
    left = rng.uniform(0, 1_000)
    for one, share in per_mille.items():
        left -= share
        if left < 0:
            return one
    return None
