"""One job's way from its image reference to its result: fetch, decode, infer."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from producer.contract import (
    CaptionJob,
    ErrorCode,
    ImageFacts,
    ImageJob,
    JobFailed,
    RegionCaptions,
    Timings,
    utcnow,
)
from producer.queues import BULK
from worker.batcher import Batcher, BatcherClosed, QueueFull
from worker.batching import BATCHES_IN_A_ROW
from worker.blip.framing import Framing
from worker.blip.geometry import Box
from worker.errors import Fault
from worker.image import Decoded
from worker.lines import Done
from worker.models import BatchKey, Models
from worker.result_cache import Answer, ResultCache

Fetch = Callable[[str, float], bytes]
"""(uri, monotonic deadline) -> the file's bytes. Raises Fault."""

Decode = Callable[[bytes, Framing, Sequence[Box] | None], Decoded]
"""(file, framing, regions) -> the framed regions, or the image, and facts. Raises Fault, and
JobFailed for regions outside the image."""


@dataclass(frozen=True)
class Product:
    """What a job's run gave: Captions, Matches or RegionCaptions, and how they came about."""

    outputs: tuple[object, ...]
    image: ImageFacts
    timings: Timings


@dataclass(frozen=True)
class Begun:
    """A job whose image, or its regions, wait for the device."""

    job: ImageJob
    futures: "list[Future[Done]]"
    image: ImageFacts
    fetched_s: float
    decoded_s: float
    give_up_s: float
    """When the device has had its time, by time.monotonic()."""
    expires: bool = False
    """Whether that is when the job expires."""
    known: Answer | None = None
    """What was answered before: the device is not asked."""
    key: str | None = None
    """What the answer is to be kept under."""

    def cancel(self) -> None:
        """What waits is not waited for any more."""
        for one in self.futures:
            one.cancel()


class Pipeline:
    """fetch -> decode -> infer, with one deadline over fetching and one over inference.

    `engine_errors` maps exception classes of the engine to codes, e.g. OutOfMemory to
    `out_of_memory`; anything else that inference raises passes through unchanged.
    """

    def __init__(
        self,
        fetch: Fetch,
        decode: Decode,
        models: Models,
        batcher: Batcher[BatchKey],
        *,
        fetch_timeout_s: float,
        infer_timeout_s: float,
        engine_errors: dict[type[Exception], ErrorCode],
        cache: ResultCache | None = None,
    ) -> None:
        self._fetch = fetch
        self._decode = decode
        self._models = models
        self._batcher = batcher
        self._fetch_timeout_s = fetch_timeout_s
        self._infer_timeout_s = infer_timeout_s
        self._engine_errors = engine_errors
        self._cache = cache

    def run(self, job: ImageJob) -> Product:
        """Take one job through every stage.

        The regions of an image are items of one submission: the image is fetched and decoded once,
        and they share batches.

        Raises:
            Fault: with the code of the stage that failed.
            JobFailed: job_invalid, saying what the model or the image does not have room for;
                job_expired, when its time ran out before the device was at it.
        """
        return self.finish(self.begin(job, self.framing(job)))

    def framing(self, job: ImageJob) -> Framing:
        """How a job's image is seen. Raises as `run`."""
        return self._models.framing(job)

    def begin(self, job: ImageJob, framing: Framing) -> Begun:
        """The stages before the device, which does not keep this thread. Raises as `run`."""
        regions = job.regions if isinstance(job, CaptionJob) else None
        try:
            with self._batcher.admit(job.lane) as admission:
                began_s = time.monotonic()
                data = self._fetch(job.image, began_s + self._fetch_timeout_s)
                fetched_s = time.monotonic()
                key = self._cache.key(job, data) if self._cache is not None else None
                if key is not None and (known := self._known(key)):
                    if _expired(job):
                        raise JobFailed(ErrorCode.JOB_EXPIRED)
                    return _answered(job, known, fetched_s - began_s)
                # Pixels that the device has no room for are not made: many regions take memory.
                patience_s = max(0.0, min(self._device_s(job), _left_s(job)))
                admission.reserve(len(regions or [0]), patience_s)
                room_s = time.monotonic()
                image = self._decode(data, framing, regions)
                decoded_s = time.monotonic()
                del data  # the file, which would be kept while its pixels wait
                if _expired(job):
                    raise JobFailed(ErrorCode.JOB_EXPIRED)
                futures = admission.submit_all(*self._models.items(job, image.images))
        except (BatcherClosed, QueueFull) as exc:
            if isinstance(exc, QueueFull) and patience_s < self._device_s(job):
                raise JobFailed(ErrorCode.JOB_EXPIRED) from exc
            raise Fault(ErrorCode.WORKER_OVERLOADED, type(exc).__name__) from exc
        left_s, device_s = _left_s(job), self._device_s(job) - (room_s - fetched_s)
        return Begun(
            job,
            futures,
            image.facts,
            fetched_s=fetched_s - began_s,
            decoded_s=decoded_s - room_s,
            give_up_s=time.monotonic() + min(device_s, left_s),
            expires=left_s <= device_s,
            key=key,
        )

    def _device_s(self, job: ImageJob) -> float:
        """How long the device is waited for. Bulk may be passed over by so many batches for each of
        its own: under a load of interactive jobs it waits longer, and has not failed for that."""
        return self._infer_timeout_s * (BATCHES_IN_A_ROW + 1 if job.lane == BULK else 1)

    def _known(self, key: str) -> Answer | None:
        return self._cache.get(key) if self._cache is not None else None

    def finish(self, begun: Begun, deadline_s: float = math.inf) -> Product:
        """Wait for the device, until `deadline_s` of time.monotonic() at most. Raises as `run`."""
        if begun.known is not None:
            timings = Timings(fetch_ms=_ms(begun.fetched_s), infer_ms=0.0)
            return Product(begun.known.outputs, begun.image, timings)
        done = self._wait(begun, min(begun.give_up_s, deadline_s))
        regions = begun.job.regions if isinstance(begun.job, CaptionJob) else None
        found = [self._models.outputs(begun.job.task, one.value) for one in done]
        outputs = _by_region(regions, found) if regions else found[0]
        if begun.key is not None and self._cache is not None:
            device_ms = _ms(sum(one.ran_s / one.batch_size for one in done))
            self._cache.put(begun.key, Answer.of(begun.job, outputs, begun.image, device_ms))
        return Product(
            outputs=outputs,
            image=begun.image,
            timings=Timings(
                fetch_ms=_ms(begun.fetched_s),
                decode_ms=_ms(begun.decoded_s),
                infer_ms=_ms(max(one.waited_s + one.ran_s for one in done)),
                batch_size=max(one.batch_size for one in done),
            ),
        )

    def _wait(self, begun: Begun, give_up_s: float) -> list[Done]:
        try:
            return [one.result(max(0.0, give_up_s - time.monotonic())) for one in begun.futures]
        except FutureTimeout as exc:
            if _expired(begun.job) or (begun.expires and give_up_s >= begun.give_up_s):
                raise JobFailed(ErrorCode.JOB_EXPIRED) from exc
            detail = f"no answer from the device in {self._device_s(begun.job):g} s"
            raise Fault(ErrorCode.WORKER_OVERLOADED, detail) from exc
        except tuple(self._engine_errors) as exc:
            code = next(code for kind, code in self._engine_errors.items() if isinstance(exc, kind))
            raise Fault(code, str(exc)) from exc
        finally:
            begun.cancel()


def _left_s(job: ImageJob) -> float:
    return math.inf if job.expires_at is None else (job.expires_at - utcnow()).total_seconds()


def _expired(job: ImageJob) -> bool:
    return _left_s(job) <= 0


def _answered(job: ImageJob, answer: Answer, fetched_s: float) -> Begun:
    done: Future[Done] = Future()
    done.set_result(Done(None, 1, 0.0, 0.0))
    return Begun(
        job, [done], answer.image, fetched_s=fetched_s, decoded_s=0, give_up_s=0, known=answer
    )


def _by_region(regions: Sequence[Box], found: Sequence[Any]) -> tuple[RegionCaptions, ...]:
    return tuple(
        RegionCaptions(box=box, captions=captions)
        for box, captions in zip(regions, found, strict=True)
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1_000, 3)
