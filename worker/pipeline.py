"""One job's way from its image reference to its result: fetch, decode, infer."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.contract import (
    CaptionJob,
    ErrorCode,
    ExplainOptions,
    ImageFacts,
    ImageJob,
    JobFailed,
    Timings,
    utcnow,
)
from producer.queues import BULK
from worker.answer import Answer
from worker.asked import BatchKey, Plan
from worker.batcher import Batcher, BatcherClosed, QueueFull
from worker.batching import BATCHES_IN_A_ROW
from worker.blip.framing import Framing
from worker.blip.geometry import Box
from worker.errors import Fault
from worker.image import Decoded
from worker.lines import Done
from worker.maps import PREVIEW_PX, Explained, preview
from worker.models import Models
from worker.packs.answering import NO_PACKS, Answering
from worker.pictures.ground import within
from worker.result_cache import Kept, ResultCache

Pixels = NDArray[np.uint8]

SHOWN_PX = 800
"""Longer side of the image that pictures are drawn on."""

LANCZOS = 1
"""PIL.Image.Resampling.LANCZOS."""

Fetch = Callable[[str, float], bytes]
"""(uri, monotonic deadline) -> the file's bytes. Raises Fault."""

Decode = Callable[[bytes, Framing, Sequence[Box] | None], Decoded]
"""(file, framing, regions) -> the framed regions, or the image, and facts. Raises Fault, and
JobFailed for regions outside the image."""


@dataclass(frozen=True)
class Product:
    """What a job's run gave, and how it came about. image: None where the job has none."""

    answer: Answer
    image: ImageFacts | None
    timings: Timings
    cached: bool | None = None
    """Whether that was answered before; None where it was not looked for."""
    began_s: float | None = None
    """When fetching began, by time.monotonic()."""
    given_s: float | None = None
    """When the device was asked."""


@dataclass(frozen=True)
class Begun:
    """A job whose image, or its regions, wait for the device."""

    job: ImageJob
    futures: "list[Future[Done]]"
    image: ImageFacts | None
    fetched_s: float | None
    decoded_s: float | None
    give_up_s: float
    """When the device has had its time, by time.monotonic()."""
    expires: bool = False
    """Whether that is when the job expires."""
    known: Kept | None = None
    """What was answered before: the device is not asked."""
    key: str | None = None
    """What the answer is to be kept under."""
    shown: Pixels | None = None
    """What pictures of the answer are drawn on, and what a result shows of the image."""
    packs: Answering = NO_PACKS
    """Those that answer it."""
    began_s: float | None = None
    given_s: float | None = None
    """As a Product's."""

    def cancel(self) -> None:
        """What waits is not waited for any more."""
        for one in self.futures:
            one.cancel()


class Pipeline:
    """fetch -> decode -> infer, with one deadline over fetching and one over inference.

    `engine_errors` maps exception classes of the engine to codes, e.g. OutOfMemory to
    `out_of_memory`; anything else that inference raises passes through unchanged. `told` hears of
    each product, with the task, on the thread that waits for it; it must not raise.
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
        told: Callable[[str, Product], object] = lambda *_: None,
    ) -> None:
        self._fetch = fetch
        self._decode = decode
        self._models = models
        self._batcher = batcher
        self._fetch_timeout_s = fetch_timeout_s
        self._infer_timeout_s = infer_timeout_s
        self._engine_errors = engine_errors
        self._cache = cache
        self._told = told

    def run(self, job: ImageJob) -> Product:
        """Take one job through every stage.

        The regions of an image are items of one submission: the image is fetched and decoded once,
        and they share batches.

        Raises:
            Fault: with the code of the stage that failed.
            JobFailed: job_invalid, saying what the model or the image does not have room for;
                job_expired, when its time ran out before the device was at it.
        """
        return self.finish(self.begin(job, self.plan(job)))

    def plan(self, job: ImageJob) -> Plan:
        """How a job's image is seen, and which packs answer. Raises as `run`."""
        return self._models.plan(job)

    def begin(self, job: ImageJob, plan: Plan) -> Begun:
        """The stages before the device, which does not keep this thread. Raises as `run`.

        Packs are loaded once the image is there: a slow host keeps none on the device.
        """
        device_s = self._device_s(job)
        patience_s = max(0.0, min(device_s, _left_s(job)))
        try:
            with self._batcher.admit(job.lane) as admission:
                if job.image is None:
                    key, items = self._models.items(job, (), plan.packs)
                    admission.reserve(len(items), patience_s)
                    waiting = _waiting(job, admission.submit_all(key, items), device_s)
                    return replace(waiting, packs=plan.packs)
                began_s = time.monotonic()
                data = self._fetch(job.image, began_s + self._fetch_timeout_s)
                fetched_s = time.monotonic()
                packs = plan.packs
                kept_as = self._cache.key(job, data, packs) if self._cache is not None else None
                if kept_as is not None and (known := self._known(kept_as)):
                    if _expired(job):
                        raise JobFailed(ErrorCode.JOB_EXPIRED)
                    return replace(_answered(job, known, fetched_s - began_s), began_s=began_s)
                # Pixels that the device has no room for are not made: many regions take memory.
                regions = job.regions if isinstance(job, CaptionJob) else None
                patience_s = max(0.0, min(device_s, _left_s(job)))
                admission.reserve(len(regions or [0]), patience_s)
                room_s = time.monotonic()
                image = self._decode(data, plan.framing, regions)
                shown = self._shown(job, data, image.facts)
                decoded_s = time.monotonic()
                del data  # the file, which would be kept while its pixels wait
                if _expired(job):
                    raise JobFailed(ErrorCode.JOB_EXPIRED)
                futures = admission.submit_all(*self._models.items(job, image.images, packs))
        except (BatcherClosed, QueueFull) as exc:
            if isinstance(exc, QueueFull) and patience_s < device_s:
                raise JobFailed(ErrorCode.JOB_EXPIRED) from exc
            raise Fault(ErrorCode.WORKER_OVERLOADED, type(exc).__name__) from exc
        return replace(
            _waiting(job, futures, device_s - (room_s - fetched_s)),
            image=image.facts,
            fetched_s=fetched_s - began_s,
            decoded_s=decoded_s - room_s,
            key=kept_as,
            shown=shown,
            packs=packs,
            began_s=began_s,
        )

    def _shown(self, job: ImageJob, data: bytes, facts: ImageFacts) -> Pixels | None:
        """The image as pictures, or the result, show it, where that is wanted."""
        explain = getattr(job, "explain", None)
        if explain is None or not (explain.pictures or explain.inline):
            return None
        longest = SHOWN_PX if explain.pictures else PREVIEW_PX
        width, height = within(facts.width, facts.height, longest)
        small = Framing("stretch", (height, width), patch_size=1, resample=LANCZOS, fill=(0, 0, 0))
        return self._decode(data, small, None).images[0]

    def _device_s(self, job: ImageJob) -> float:
        """How long the device is waited for. Bulk may be passed over by so many batches for each of
        its own: under a load of interactive jobs it waits longer, and has not failed for that."""
        return self._infer_timeout_s * (BATCHES_IN_A_ROW + 1 if job.lane == BULK else 1)

    def _known(self, key: str) -> Kept | None:
        return self._cache.get(key) if self._cache is not None else None

    def finish(self, begun: Begun, deadline_s: float = math.inf) -> Product:
        """Wait for the device, until `deadline_s` of time.monotonic() at most. Raises as `run`."""
        product = self._finished(begun, deadline_s)
        self._told(begun.job.task, product)
        return product

    def _finished(self, begun: Begun, deadline_s: float) -> Product:
        if begun.known is not None:
            timings = Timings(fetch_ms=_ms(begun.fetched_s), infer_ms=0.0)
            known = begun.known.answer
            return Product(known, begun.image, timings, cached=True, began_s=begun.began_s)
        done = self._wait(begun, min(begun.give_up_s, deadline_s))
        said = [one.value for one in done]
        answer = self._models.answer(begun.job, said, begun.image, begun.packs)
        if begun.shown is not None and answer.explained is not None:
            answer = answer.model_copy(update=_pictured(begun.job, begun.shown, answer.explained))
        if begun.key is not None and begun.image is not None and self._cache is not None:
            device_ms = 1_000 * sum(one.ran_s / one.batch_size for one in done)
            kept = Kept(image=begun.image, answer=answer, device_ms=round(device_ms, 3))
            self._cache.put(begun.key, kept)
        return Product(
            answer=answer,
            image=begun.image,
            timings=Timings(
                fetch_ms=_ms(begun.fetched_s),
                decode_ms=_ms(begun.decoded_s),
                infer_ms=_ms(max(one.waited_s + one.ran_s for one in done)),
                batch_size=max(one.batch_size for one in done),
            ),
            cached=None if begun.key is None else False,
            began_s=begun.began_s,
            given_s=begun.given_s,
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


def _pictured(job: ImageJob, shown: Pixels, explained: Explained) -> dict[str, Any]:
    """What an answer has besides, where it shows its image."""
    explain: ExplainOptions = getattr(job, "explain")  # noqa: B009 - of those jobs that are explained
    own: dict[str, Any] = {"preview": preview(shown)} if explain.inline else {}
    return own | ({"explained": replace(explained, shown=shown)} if explain.pictures else {})


def _left_s(job: ImageJob) -> float:
    return math.inf if job.expires_at is None else (job.expires_at - utcnow()).total_seconds()


def _expired(job: ImageJob) -> bool:
    return _left_s(job) <= 0


def _waiting(job: ImageJob, futures: "list[Future[Done]]", device_s: float) -> Begun:
    """A job that waits for the device from now on, so many seconds at most."""
    left_s, now_s = _left_s(job), time.monotonic()
    return Begun(
        job,
        futures,
        image=None,
        fetched_s=None,
        decoded_s=None,
        give_up_s=now_s + min(device_s, left_s),
        expires=left_s <= device_s,
        given_s=now_s,
    )


def _answered(job: ImageJob, known: Kept, fetched_s: float) -> Begun:
    done: Future[Done] = Future()
    done.set_result(Done(None, 1, 0.0, 0.0))
    return Begun(
        job, [done], known.image, fetched_s=fetched_s, decoded_s=None, give_up_s=0, known=known
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1_000, 3)
