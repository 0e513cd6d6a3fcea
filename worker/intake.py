"""Many images of one message at once: fetched and decoded by threads that all messages share.

Messages hand out their images one after the other, in either lane: the time of one does not run
while others are at it. Images go to the batcher as they come. A place is held from an image's turn
until the device has been at it: so few of them wait in memory, and a slow device holds up fetching.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from producer.contract import ErrorCode, ImageJob, JobFailed, utcnow
from producer.queues import BULK, INTERACTIVE
from worker.asked import Plan
from worker.errors import Fault
from worker.pipeline import Begun, Pipeline, Product

TICK_S = 0.2
"""How long the end of the process may go unnoticed by what waits for its turn or for a place."""


class Unbegun(Exception):  # noqa: N818 - it is no error
    """The process was told to end before the image's turn came."""


@dataclass(frozen=True)
class IntakeLimits:
    """What all messages together may take of a process.

    Attributes:
        threads: images being fetched or decoded.
        places: images in work, those that wait for the device included: so many lie in memory,
            decoded, at most.
        timeout_s: for the images of one message, seconds from its turn; those not done then have
            failed as worker_overloaded.
    """

    threads: int
    places: int
    timeout_s: float


class Intake:
    """Takes images through the pipeline, for any number of messages at a time.

    Args:
        ending: whether the process has been told to end: then no more images are begun.
    """

    def __init__(
        self, pipeline: Pipeline, limits: IntakeLimits, ending: Callable[[], bool]
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._ending = ending
        self._places = threading.Semaphore(limits.places)
        self._turns = {lane: threading.Lock() for lane in (INTERACTIVE, BULK)}
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="intake")

    def run(self, jobs: Iterable[ImageJob]) -> list[Product | BaseException]:
        """What became of each job, in order: its product, what its run raised, or Unbegun.

        The jobs are alike but for their image, which is whole, without regions, and its language.

        Raises:
            Fault, JobFailed: none of them can be run; as `Pipeline.plan`.
        """
        jobs = list(jobs)
        if not jobs:
            return []
        plans, turn = self._plans(jobs), self._turns[jobs[0].lane]
        while not turn.acquire(timeout=TICK_S):
            if self._ending():
                return [Unbegun() for _ in jobs]
        try:
            deadline_s = time.monotonic() + self._limits.timeout_s
            flying = [self._handed_out(job, plans[job.language], deadline_s) for job in jobs]
        finally:
            turn.release()
        return [self._outcome(one, deadline_s) for one in flying]

    def close(self) -> None:
        """After the last message."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _plans(self, jobs: Sequence[ImageJob]) -> dict[str | None, Plan | JobFailed]:
        """How the jobs of each language are answered, or why they are not; raises if none is."""
        plans: dict[str | None, Plan | JobFailed] = {}
        for job in jobs:
            if job.language not in plans:
                try:
                    plans[job.language] = self._pipeline.plan(job)
                except JobFailed as exc:
                    plans[job.language] = exc
        refused = [plan for plan in plans.values() if isinstance(plan, JobFailed)]
        if len(refused) == len(plans):
            raise refused[0]
        return plans

    def _handed_out(
        self, job: ImageJob, plan: Plan | JobFailed, deadline_s: float
    ) -> "Future[Begun]":
        """An image in the hands of the threads, or one that has failed for want of a place, or of
        a plan."""
        if isinstance(plan, JobFailed):
            return _failed(plan)
        why: Exception = Unbegun()
        while not self._ending():
            left_s = deadline_s - time.monotonic()
            if self._places.acquire(timeout=max(0.0, min(TICK_S, left_s))):
                return self._pool.submit(self._begun, job, plan, deadline_s)
            if left_s <= 0:
                why = _too_late()
                break
        return _failed(why)

    def _begun(self, job: ImageJob, plan: Plan, deadline_s: float) -> Begun:
        """On one of the threads. Whatever happens, the place is given back once."""
        try:
            if self._ending():
                raise Unbegun
            if time.monotonic() >= deadline_s:
                raise _too_late()
            if job.expires_at is not None and utcnow() >= job.expires_at:
                raise JobFailed(ErrorCode.JOB_EXPIRED)
            begun = self._pipeline.begin(job, plan)
        except BaseException:
            self._places.release()
            raise
        left = count(len(begun.futures) - 1, -1)
        for waiting in begun.futures:
            waiting.add_done_callback(lambda _: None if next(left) else self._places.release())
        return begun

    def _outcome(self, flying: "Future[Begun]", deadline_s: float) -> Product | BaseException:
        try:
            begun = flying.result(max(0.0, deadline_s - time.monotonic()))
            return self._pipeline.finish(begun, deadline_s)
        except TimeoutError:
            if flying.cancel():
                self._places.release()
            return _too_late()
        except BaseException as exc:  # noqa: BLE001 - it is of this image alone
            return exc


def _failed(why: Exception) -> "Future[Begun]":
    failed: Future[Begun] = Future()
    failed.set_exception(why)
    return failed


def _too_late() -> Fault:
    return Fault(ErrorCode.WORKER_OVERLOADED, "the time for the images of this message is over")
