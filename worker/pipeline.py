"""One job's way from its image reference to its result: fetch, decode, infer."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from producer.contract import ErrorCode, ImageFacts, Job, Timings
from worker.batcher import Batcher, BatcherClosed, Done, QueueFull
from worker.errors import Fault
from worker.image import Decoded
from worker.models import BatchKey, Models

Fetch = Callable[[str, float], bytes]
"""(uri, monotonic deadline) -> the file's bytes. Raises Fault."""

Decode = Callable[[bytes, tuple[int, int], int], Decoded]
"""(file, (height, width) wanted, resample filter) -> pixels and facts. Raises Fault."""


@dataclass(frozen=True)
class Product:
    """What a job's run gave: one tuple of Caption or of Match, and how it came about."""

    outputs: tuple[object, ...]
    image: ImageFacts
    timings: Timings


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
    ) -> None:
        self._fetch = fetch
        self._decode = decode
        self._models = models
        self._batcher = batcher
        self._fetch_timeout_s = fetch_timeout_s
        self._infer_timeout_s = infer_timeout_s
        self._engine_errors = engine_errors

    def run(self, job: Job) -> Product:
        """Take one job through every stage.

        Raises:
            Fault: with the code of the stage that failed.
        """
        engine = self._models.engine(job.task)
        try:
            with self._batcher.admit() as admission:
                began_s = time.monotonic()
                data = self._fetch(job.image, began_s + self._fetch_timeout_s)
                fetched_s = time.monotonic()
                image = self._decode(data, engine.image_size, engine.resample)
                decoded_s = time.monotonic()
                future = admission.submit(*self._models.item(job, image.pixels))
        except (BatcherClosed, QueueFull) as exc:
            raise Fault(ErrorCode.WORKER_OVERLOADED, type(exc).__name__) from exc
        done = self._wait(future)
        return Product(
            outputs=done.value,
            image=image.facts,
            timings=Timings(
                fetch_ms=_ms(fetched_s - began_s),
                decode_ms=_ms(decoded_s - fetched_s),
                infer_ms=_ms(done.waited_s + done.ran_s),
                batch_size=done.batch_size,
            ),
        )

    def _wait(self, future: "Future[Done]") -> Done:
        try:
            return future.result(self._infer_timeout_s)
        except FutureTimeout as exc:
            future.cancel()
            detail = f"no answer from the device in {self._infer_timeout_s} s"
            raise Fault(ErrorCode.WORKER_OVERLOADED, detail) from exc
        except tuple(self._engine_errors) as exc:
            code = next(code for kind, code in self._engine_errors.items() if isinstance(exc, kind))
            raise Fault(code, str(exc)) from exc


def _ms(seconds: float) -> float:
    return round(seconds * 1_000, 3)
