"""The results store: one record per job, of which the first terminal state is kept.

The producer writes a record before it sends the message, the worker when it starts and when it
ends. producer/memory_store.py is the twin of producer/redis_store.py; one suite tests both.
"""

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from producer.batch import Batch
from producer.callback import Callback
from producer.contract import ItemResult, Job, JobResult, JobState
from producer.errors import StoreFull, StoreUnavailable
from producer.listing import Page
from producer.presence import LIFE_S, WorkerFacts
from producer.terms import Terms
from producer.wire import WireJob

if TYPE_CHECKING:
    from producer.watch import Watch

__all__ = [
    "Delivered",
    "Record",
    "Settled",
    "Store",
    "StoreFull",
    "StoreUnavailable",
    "still_missing",
]


MAX_HISTORY = 20
"""Deliveries of a job that its record names; older ones are forgotten."""


class Delivered(BaseModel):
    """One delivery of a job to a worker, which may have died of it. `attempt` is from 1."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    worker: str
    attempt: int


class Record(BaseModel):
    """What is known of a job. `job` is its JSON text, None when a plain Celery client sent it."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    task: str
    state: JobState
    job: str | None = None
    result: JobResult | None = None
    created_at: datetime
    started_at: datetime | None = None
    worker: str | None = None
    attempt: int = 0
    history: tuple[Delivered, ...] = ()
    owner: str | None = None
    batch_id: str | None = None

    def deliveries(self, attempt: int) -> int:
        """How often an attempt has been delivered: more than once where its worker died."""
        return sum(one.attempt == attempt for one in self.history)


class Settled(NamedTuple):
    """What is kept of a chunk that is under way: its images whose end is known, by their place;
    `result` when the chunk itself has ended."""

    items: dict[int, ItemResult]
    result: JobResult | None = None


class Store(Protocol):
    """Keeps records for a bounded time; every change is atomic.

    Every method raises StoreUnavailable when the store cannot be reached within its time-outs
    and StoreFull when it has no memory left to write.
    """

    def create(self, job: Job) -> Record | None:
        """Write a queued record of a job, which has an id, unless that id is known.

        Returns:
            None when the job is new, also when this very submission (the same JSON text) was
            written before and its answer lost; else the record there is, left as it was. The
            record of a message that named a job of which nothing was known gives way.
        """

    def create_many(self, jobs: Sequence[Job]) -> builtins.list[Record | None]:
        """`create` for each job, in the same order."""

    def start(
        self,
        job_id: str,
        task: str,
        attempt: int,
        worker: str,
        at: datetime | None = None,
        only_first: bool = False,
        terms: Terms | None = None,
    ) -> Record:
        """Mark a job as running and count this delivery, creating the record when there is none.

        A delivery that is counted is told on the job's channel of events.

        A call that is repeated because its answer was lost says the same `at`, and counts once.

        Args:
            at: the moment, this one unless given; the record's `started_at` if it is counted.
            only_first: a delivery of an attempt that has been delivered before is not counted.
            terms: what the job says of its callback, batch and owner, for a record that is created
                here; others have it.

        Returns:
            The record as it now is; left as it was when the job has ended, is in a later attempt
            already, or has been delivered before and `only_first` was asked for.
        """

    def return_delivery(self, job_id: str, attempt: int) -> None:
        """Undo the latest `start` of an attempt: its message goes back to the queue, and that it
        was delivered says nothing against the job. A job that has ended stays as it is. It is told
        on the job's channel of events."""

    def settle(self, job_id: str, items: Sequence[ItemResult] = ()) -> Settled:
        """Keep the ends of some images of a running chunk; of each image, the first end that comes.

        Without items, a look at what is kept. A job that has ended, or has no record, keeps none.
        """

    def finish(
        self,
        result: JobResult,
        letter: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> JobResult:
        """Write a terminal state, set the record's life and tell those who wait.

        In the same step, if this is the first terminal state: the job's callback is due, its batch
        counts it, and the stream of results has it.

        With `letter`, a dead letter of these fields and of the job's `deliveries` (its history as
        JSON) is written in the same step, if this is the first terminal state. What `settle` kept
        is then kept for as long as the record; it is forgotten without.

        Args:
            terms: as for `start`.

        Returns:
            The result that is kept: the earlier one when the job had ended before.

        Raises:
            ValueError: the state is not a terminal one.
        """

    def get(self, job_id: str) -> Record | None:
        """The record, or None when there is none (any more)."""

    def forget(self, *jobs: Job) -> None:
        """Undo `create` of these submissions, whose messages could not be sent; their batches count
        them no more.

        A record that has left the queued state, or that another submission of the same id wrote,
        stays.
        """

    def wait(self, job_ids: Iterable[str], timeout_s: float) -> Iterator[JobResult]:
        """Yield the results of these jobs as they end, each once; ids not known yet may come.

        Raises:
            TimeoutError: some are missing after `timeout_s` seconds (math.inf: never).
            StoreUnavailable: the store was not there to begin with; later outages are waited out.
        """

    def watch(self) -> "Watch":
        """Results of a set of jobs that grows."""

    def list(
        self,
        *,
        state: JobState | None = None,
        owner: str | None = None,
        batch_id: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Those of the newest jobs (LISTED_JOBS of them) that are of this state, owner and batch,
        the newest first.

        Args:
            before: `next` of the page that this one follows.
            limit: most jobs of the page, up to 1,000.

        Raises:
            ValueError: for another cursor, or limit.
        """

    def open_batch(
        self, batch_id: str, callback: Callback | None = None, owner: str | None = None
    ) -> Batch:
        """Begin a batch: jobs that are submitted with its id are counted in it. One that is known
        is returned as it is: its callback and owner stay."""

    def close_batch(self, batch_id: str) -> Batch | None:
        """No more jobs come: when all that were counted have ended, the batch has, and its callback
        is due, once. None when there is no such batch (any more)."""

    def batch(self, batch_id: str) -> Batch | None:
        """How far a batch is. None when there is none (any more)."""

    def present(self, facts: WorkerFacts, life_s: float = LIFE_S) -> None:
        """Say that a worker lives; believed for `life_s` seconds."""

    def absent(self, name: str) -> None:
        """Say that a worker has ended."""

    def workers(self) -> Sequence[WorkerFacts]:
        """The workers that live, by name."""

    def close(self) -> None:
        """Release the connections."""


def still_missing(missing: int, timeout_s: float) -> TimeoutError:
    """The error of a wait that ended before `missing` of its jobs did."""
    jobs = "1 job has" if missing == 1 else f"{missing} jobs have"
    return TimeoutError(f"{jobs} not ended within {timeout_s:g} s.")


def checked_terminal(result: JobResult) -> JobResult:
    """The result itself.

    Raises:
        ValueError: its state is not terminal.
    """
    if not result.state.terminal:
        raise ValueError(f"{result.state} is not a terminal state")
    return result


def checked_id(job: Job | WireJob) -> str:
    """The job's id.

    Raises:
        ValueError: it has none.
    """
    if job.job_id is None:
        raise ValueError("a job needs an id before it is recorded")
    return job.job_id
