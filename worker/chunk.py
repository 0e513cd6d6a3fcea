"""One attempt at a chunk: each of its images succeeds, fails, or is tried again.

What is settled (succeeded, or failed for good) is kept in the results store, once per attempt,
before the message is sent again and before a shard is written: so another attempt runs only what
is left, whichever worker it comes to.
"""

import logging
import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from producer.contract import (
    Chunk,
    ErrorCode,
    ItemResult,
    JobError,
    JobResult,
    JobState,
    RankChunk,
    public_uri,
    utcnow,
)
from producer.language import PackFacts
from producer.store import Settled, Store, StoreUnavailable
from worker.answer import ranking_of_images
from worker.delivery import Delivery
from worker.errors import Fault, public_failure
from worker.intake import Intake, Unbegun
from worker.models import Models
from worker.pipeline import Product
from worker.publish import patiently
from worker.retry import delay_s
from worker.sink import Sinks

log = logging.getLogger(__name__)

REMEMBERED = 100
"""Chunks whose settled images could not be written, kept for when their messages come round."""


class TryAgain(Exception):  # noqa: N818 - it is no error
    """Some images, or the shard, are to be tried again in so many seconds; what is settled is
    kept."""

    def __init__(self, code: ErrorCode, wait_s: float, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.wait_s = wait_s


class GoesBack(Exception):  # noqa: N818
    """The process is about to end: what is settled is kept, the rest is another worker's."""


@dataclass(frozen=True)
class _Later:
    """An image is worth another try, in so many seconds."""

    code: ErrorCode
    wait_s: float


class Chunks:
    """Runs chunks, for any number of threads at a time.

    Args:
        patience_s: how long an absent results store is waited for, seconds.
        ending: whether the process has been told to end.
        told: hears of each image that had its turn; see `Heard.judged`.
    """

    def __init__(
        self,
        intake: Intake,
        models: Models,
        store: Store,
        sinks: Sinks,
        *,
        patience_s: float,
        rng: random.Random,
        ending: Callable[[], bool],
        told: Callable[[int, Product | ErrorCode], object] = lambda *_: None,
    ) -> None:
        self._told = told
        self._intake = intake
        self._models = models
        self._store = store
        self._sinks = sinks
        self._patience_s = patience_s
        self._rng = rng
        self._ending = ending
        self._unwritten: OrderedDict[str, list[ItemResult]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, chunk: Chunk, delivery: Delivery) -> JobResult:
        """One attempt: the chunk's result, when every image is settled.

        Raises:
            TryAgain: see there.
            GoesBack: see there.
            Fault, JobFailed: the chunk as a whole cannot be run, its time has run out, or its
                shard cannot be written.
            StoreUnavailable: what is settled could not be kept; this process remembers it.
        """
        if chunk.sink is not None:
            self._sinks.check(chunk.sink, chunk.sink_format)
        kept = self._keep(delivery.job_id, ())
        if kept.result is not None:
            return kept.result
        items = dict(kept.items)
        left = [index for index in range(len(chunk.images)) if index not in items]
        outcomes = [
            self._judged(chunk, index, outcome, delivery)
            for index, outcome in zip(left, self._intake.run(map(chunk.one, left)), strict=True)
        ]
        ended = [one for one in outcomes if isinstance(one, ItemResult)]
        later = [one for one in outcomes if isinstance(one, _Later)]
        items |= {one.index: one for one in ended}
        whole = len(ended) == len(left)
        if not whole or (chunk.sink is not None and ended):
            kept = self._keep(delivery.job_id, ended)
            if kept.result is not None:
                return kept.result
            items |= kept.items  # another worker may have been first: its end counts
        if None in outcomes or (self._ending() and chunk.sink is not None and whole):
            raise GoesBack
        if later:
            last = max(later, key=lambda one: one.wait_s)
            detail = f"{len(later)} of {len(chunk.images)} images are left"
            raise TryAgain(last.code, last.wait_s, detail)
        return self._result(chunk, delivery, [items[index] for index in sorted(items)])

    def close(self) -> None:
        """After the last chunk."""
        self._intake.close()
        self._sinks.close()

    def _keep(self, job_id: str, ended: Iterable[ItemResult]) -> Settled:
        with self._lock:
            items = [*self._unwritten.pop(job_id, ()), *ended]
        try:
            return patiently(lambda: self._store.settle(job_id, items), self._patience_s)
        except StoreUnavailable:
            with self._lock:
                self._unwritten[job_id] = items
                while len(self._unwritten) > REMEMBERED:
                    self._unwritten.popitem(last=False)
            raise

    def _judged(
        self, chunk: Chunk, index: int, outcome: Product | BaseException, delivery: Delivery
    ) -> ItemResult | _Later | None:
        """The end of an image, or that it is worth another try, or None: it was not begun.

        Raises:
            JobFailed: job_expired: that is the chunk's end.
        """
        if isinstance(outcome, Unbegun):
            return None
        if isinstance(outcome, BaseException):
            return self._failed(chunk, index, outcome, delivery)
        self._told(index, outcome)
        return ItemResult(
            index=index,
            image_ref=public_uri(chunk.images[index]),
            state=JobState.SUCCEEDED,
            attempts=delivery.attempt,
            **outcome.answer.fields,
            image=outcome.image,
        )

    def _failed(
        self, chunk: Chunk, index: int, exc: BaseException, delivery: Delivery
    ) -> ItemResult | _Later:
        failure = public_failure(exc)
        if failure.code is ErrorCode.JOB_EXPIRED:
            raise failure
        self._told(index, failure.code)
        retry_after_s = exc.retry_after_s if isinstance(exc, Fault) else None
        wait_s = delay_s(failure.code, delivery.attempt, self._rng, retry_after_s)
        unforeseen = exc if failure.code is ErrorCode.INTERNAL_ERROR else None
        log.log(
            logging.ERROR if unforeseen else logging.INFO,
            "job %s: image %d: attempt %d: %s (%s); %s",
            delivery.job_id,
            index,
            delivery.attempt,
            failure.code.value,
            exc,
            "given up" if wait_s is None else "to be tried again",
            exc_info=unforeseen,
        )
        if wait_s is not None:
            return _Later(failure.code, wait_s)
        return ItemResult(
            index=index,
            image_ref=public_uri(chunk.images[index]),
            state=JobState.FAILED,
            attempts=delivery.attempt,
            error=JobError.of(failure),
        )

    def _result(self, chunk: Chunk, delivery: Delivery, items: list[ItemResult]) -> JobResult:
        shard = self._written(chunk, delivery, items)
        return JobResult(
            job_id=delivery.job_id,
            task=chunk.task,
            state=JobState.SUCCEEDED,
            attempts=delivery.attempt,
            image_ref=chunk.shown,
            items=None if shard else tuple(items),
            shard=shard,
            counts=dict(Counter(item.outcome for item in items)),
            ranking=ranking_of_images(chunk, items) if isinstance(chunk, RankChunk) else None,
            **self._models.facts_of(chunk.one(0)),
            pack=_one_of(item.pack for item in items if item.error is None),
            match_pack=_one_of(item.match_pack for item in items if item.error is None),
            finished_at=utcnow(),
        )

    def _written(self, chunk: Chunk, delivery: Delivery, items: list[ItemResult]) -> str | None:
        """The URI of the shard. Its tries are counted from when the last image was settled."""
        if chunk.sink is None:
            return None
        try:
            return self._sinks.write(chunk.sink, chunk.sink_format, delivery.job_id, items)
        except Fault as exc:
            tries = delivery.attempt - max(item.attempts for item in items) + 1
            wait_s = delay_s(exc.code, max(1, tries), self._rng)
            if wait_s is None:
                raise
            raise TryAgain(exc.code, wait_s, str(exc)) from exc


def _one_of(packs: Iterable[PackFacts | None]) -> PackFacts | None:
    """The pack that answered for all images of a chunk: between its attempts it may change."""
    said = set(packs)
    return said.pop() if len(said) == 1 else None
