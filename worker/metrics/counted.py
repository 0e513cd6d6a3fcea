"""What a worker counts while it works: each method is handed to the part that knows (house.py).

They are called for every job and image, so each costs a microsecond or two, and none raises.
"""

import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from producer.contract import Caption, ErrorCode, JobResult, JobState
from producer.errors import TRANSIENT
from worker.batcher import Outcome, Ran
from worker.callbacks.schedule import FINAL, Fate
from worker.deadletter import GIVEN_UP
from worker.pipeline import Product
from worker.retry import SECOND_CHANCE

STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90, 300)
QUEUE_S = (0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
FILL = (0.1, 0.25, 0.5, 0.75, 0.9, 1)

KILLED = (ErrorCode.DECODE_TIMEOUT, ErrorCode.DECODE_CRASHED)
"""Of images that ended what decoded them; a few of them are worth a look."""


class Counted:
    """Counters and histograms of one process, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"captionq_{name}", says, labels, registry=registry)

        def histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"captionq_{name}", says, labels, buckets=buckets, registry=registry)

        self.progress_s = time.monotonic()
        """When anything came to its end here: a job, a try, a batch."""
        self._jobs = cache(
            counter("jobs_total", "Jobs that ended here", "task", "state", "code").labels
        )
        self._images = cache(
            counter("images_total", "Images of jobs that ended here", "task", "outcome").labels
        )
        self._job_s = cache(
            histogram("job_seconds", "From submission to the end", QUEUE_S, "task").labels
        )
        stages = histogram("stage_seconds", "A stage of an image's way", STAGE_S, "stage")
        self._fetch = stages.labels("fetch")
        self._decode = stages.labels("decode")
        self._infer = stages.labels("infer")
        self._queue = histogram("queue_seconds", "From submission to the first stage", QUEUE_S)
        self._retries = counter("retries_total", "Tries that are made again", "code")
        self._redeliveries = counter(
            "redeliveries_total", "Deliveries of jobs that were delivered before", "task"
        )
        self._returned = counter(
            "returned_total", "Messages that went back unworked, by why", "reason"
        )
        self._letters = counter("dead_letters_total", "Dead letters written here", "code")
        self._tokens = cache(
            counter("generated_tokens_total", "Tokens of captions given", "task").labels
        )
        self._cache = counter("cache_requests_total", "Looks into the cache of results", "outcome")
        self._batches = cache(
            counter("batches_total", "Batches of the device thread", "task", "outcome").labels
        )
        self._batch_s = cache(
            histogram("batch_seconds", "A batch on the device", STAGE_S, "task").labels
        )
        self._batch_size = cache(histogram("batch_items", "Items of a batch", BATCH, "task").labels)
        self._fill = cache(histogram("batch_fill_ratio", "Of a batch's room", FILL, "task").labels)
        self._callbacks = counter("callbacks_total", "Tries of callbacks, by what came", "outcome")
        self._passes = counter("reconciler_passes_total", "Passes of the reconciler", "outcome")
        self._again = counter(
            "reconciler_sent_again_total", "Jobs that the broker had lost, sent again"
        )

        self._cut_off = counter(
            "broker_connections_lost_total", "How often the connection to the broker was lost"
        )

    def expect(self, tasks: Iterable[str]) -> None:
        """Let the series of what goes wrong begin at 0: Prometheus sees no increase in the first
        sample of a series.

        Args:
            tasks: those that are served.
        """
        for code in (*GIVEN_UP, ErrorCode.JOB_INVALID, ErrorCode.CALLBACK_FAILED, *FINAL):
            self._letters.labels(code.value)
        for code in (*TRANSIENT, *SECOND_CHANCE, ErrorCode.SCHEMA_UNSUPPORTED):
            self._retries.labels(code.value)
        for task in tasks:
            self._redeliveries.labels(task)
            for outcome in get_args(Outcome):
                self._batches(task, outcome)
            for code in KILLED:
                self._images(task, code.value)
        for reason in ("store", "ending"):
            self._returned.labels(reason)
        for fate in Fate:
            self._callbacks.labels(fate.value)
        for outcome in ("done", "failed"):
            self._passes.labels(outcome)

    def ended(self, result: JobResult, letter: Mapping[str, str] | None) -> None:
        """A job has its result, and perhaps a dead letter, written by this process."""
        self.progress_s = time.monotonic()
        code = result.error.code if result.error else ""
        self._jobs(result.task, result.state.value, str(code) or "none").inc()
        if result.counts is None:
            self._images(result.task, str(code) or "succeeded").inc()
        for outcome, images in (result.counts or {}).items():
            self._images(result.task, outcome).inc(images)
        timings = result.timings
        if timings is not None and timings.queue_ms is not None:
            self._queue.observe(timings.queue_ms / 1_000)
            if result.state is JobState.SUCCEEDED:
                parts = (timings.queue_ms, timings.fetch_ms, timings.decode_ms, timings.infer_ms)
                self._job_s(result.task).observe(sum(part or 0 for part in parts) / 1_000)
        if letter is not None:
            self.buried(str(code))

    def buried(self, code: str) -> None:
        """A dead letter is written."""
        self._letters.labels(code).inc()

    def again(self, code: ErrorCode) -> None:
        """A job, or images of a chunk, are to be tried again."""
        self.progress_s = time.monotonic()
        self._retries.labels(code.value).inc()

    def redelivered(self, task: str) -> None:
        """A job comes that was delivered before and never ended."""
        self._redeliveries.labels(task).inc()

    def returned(self, reason: str) -> None:
        """A message goes back to its queue: the store is away, or this process ends."""
        self.progress_s = time.monotonic()
        self._returned.labels(reason).inc()

    def produced(self, task: str, product: Product) -> None:
        """An image, or the texts of a job, came through the pipeline."""
        timings = product.timings
        if timings.fetch_ms is not None:
            self._fetch.observe(timings.fetch_ms / 1_000)
        if product.cached is not None:
            self._cache.labels("hit" if product.cached else "miss").inc()
            if product.cached:
                return
        if timings.decode_ms is not None:
            self._decode.observe(timings.decode_ms / 1_000)
        if timings.infer_ms is not None:
            self._infer.observe(timings.infer_ms / 1_000)
        if tokens := _tokens(product):
            self._tokens(task).inc(tokens)

    def ran(self, ran: Ran) -> None:
        """A batch came off the device."""
        self.progress_s = time.monotonic()
        task = ran.key.task
        self._batches(task, ran.outcome).inc()
        if ran.outcome == "done":
            self._batch_s(task).observe(ran.seconds)
            self._batch_size(task).observe(ran.items)
            self._fill(task).observe(min(1.0, ran.weight / ran.room))

    def called_back(self, outcome: str, letter: Mapping[str, str] | None) -> None:
        """A callback was tried: delivered, due again, dropped or dead; the last leaves a letter."""
        self._callbacks.labels(outcome).inc()
        if letter is not None:
            self.buried(letter["code"])

    def cut_off(self) -> None:
        """The connection to the broker is lost; another is made."""
        self._cut_off.inc()

    def reconciled(self, sent: int | None) -> None:
        """A pass of the reconciler has sent so many jobs again; None: it has failed."""
        self._passes.labels("failed" if sent is None else "done").inc()
        self._again.inc(sent or 0)


def _tokens(product: Product) -> int:
    captions: tuple[Caption, ...] = product.answer.captions or ()
    tokens = sum(len(one.tokens) for one in captions)
    for region in product.answer.regions or ():
        tokens += sum(len(one.tokens) for one in region.captions)
    return tokens
