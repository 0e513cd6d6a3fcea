"""The task shell: what happens round a job's run, between Celery's message and the results store.

Nothing but Celery's control exceptions and JobFailed leaves it. In a thread pool anything that is
no Exception (SystemExit, KeyboardInterrupt) would leak the thread's slot and leave the message
unacknowledged for good.
"""

import hashlib
import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, Retry

from producer.contract import (
    CaptionJob,
    Chunk,
    ErrorCode,
    ExplainJob,
    ImageJob,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    MatchJob,
    Timings,
    parse_job,
    utcnow,
)
from producer.queues import BULK, DEFAULT_QUEUE, is_bulk, model_task, queue_for
from producer.store import Record, Store, StoreUnavailable
from worker.answered import Answered
from worker.chunk import GoesBack, TryAgain
from worker.deadletter import letter
from worker.delivery import BOUNCES, Delivery
from worker.errors import Fault, public_failure
from worker.gate import Gate
from worker.heard import Heard
from worker.models import LACKS, Models
from worker.pipeline import Product
from worker.publish import Publisher, patiently
from worker.recorded import looked_up
from worker.retry import delay_s
from worker.sink import Sinks

log = logging.getLogger(__name__)

EXPLAINED = CaptionJob | MatchJob | ExplainJob


@dataclass(frozen=True)
class Shell:
    """Takes one delivery of a job to its end: a stored result, another try, or a failure."""

    models: Models
    run: Callable[[ImageJob], Product]
    run_chunk: Callable[[Chunk, Delivery], JobResult]
    store: Store
    publisher: Publisher
    queues: frozenset[str]
    patience_s: float
    rng: random.Random
    max_deliveries: int = 3
    sinks: Sinks = field(default_factory=lambda: Sinks((), 1))
    """Where what jobs explain may be written; nowhere, unless that is said."""
    gate: Gate | None = None
    """Where jobs have to be signed."""
    heard: Heard = field(default_factory=Heard)
    delayed_s: Callable[[float], float] = float
    """How long the broker can have a message wait that is to wait so long, in seconds."""
    _running: set[tuple[str, int]] = field(default_factory=set, init=False)
    _suspects: threading.Lock = field(default_factory=threading.Lock, init=False)

    def execute(
        self, task: "Task[Any, Any]", kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Answered:
        """Carry out one delivery of a `kind` job; returns the stored result, ready for JSON.

        Raises:
            JobFailed: the job ended without a result; that is stored as well.
            Retry, Ignore, Reject: Celery's own: the message goes back, or elsewhere.
        """
        delivery = Delivery.of(task.request, args, kwargs)
        self.heard.begun(kind, delivery.job_id, task.request.headers or {})
        try:
            delivery = self._looked_up(kind, delivery)
            if self.gate is not None:
                delivery = self.gate.admit(kind, delivery)
            result = self._result(task, kind, delivery)
        except StoreUnavailable as exc:
            log.error("job %s goes back to its queue: no results store", delivery.job_id)
            self.heard.returned("store")
            raise Reject(str(exc), requeue=True) from exc
        return Answered(result.raise_for_state())

    def revoked(self, kind: str, delivery: Delivery, expired: bool) -> None:
        """Store the end of a `kind` job whose message Celery dropped: it was revoked, as Flower's
        button does, or `expired` by its own header. Otherwise it would stay queued.

        Tries once: Celery calls this on the thread that takes messages.
        """
        failure = JobFailed(ErrorCode.JOB_EXPIRED if expired else ErrorCode.JOB_CANCELLED)
        try:
            delivery = looked_up(self.store, delivery, patience_s=0)
            if self.gate is not None:
                self.gate.admit(kind, delivery, patience_s=0)
            ended = _without_result(kind, delivery, failure, delivery.attempt - 1)
            self.store.finish(ended, terms=delivery.terms)
        except JobFailed:  # it is none of that job's, or there is none
            return
        except StoreUnavailable as exc:
            log.error("job %s was dropped, and that is not stored: %s", delivery.job_id, exc)

    def return_running(self) -> None:
        """What runs is about to be returned to its queues: that it was delivered is undone, since
        a planned end says nothing against a job. Errors are logged."""
        for job_id, attempt in list(self._running):
            if not self._uncount(job_id, attempt):
                return  # others would wait as long, and the messages have to go back

    def _looked_up(self, kind: str, delivery: Delivery) -> Delivery:
        """The delivery with its job. One whose record is gone ends as expired: where jobs have to
        be signed without a record, for nobody knows that it was one.

        Raises:
            JobFailed: job_expired.
        """
        try:
            return looked_up(self.store, delivery, self.patience_s)
        except JobFailed as gone:
            if self.gate is None:
                ended = _without_result(kind, delivery, gone, delivery.attempt - 1)
                patiently(lambda: self.store.finish(ended), self.patience_s)
            raise

    def _result(self, task: "Task[Any, Any]", kind: str, delivery: Delivery) -> JobResult:
        try:
            job = parse_job(kind, delivery.payload)
            self._forward_unless_in_place(task, job, delivery)
            if unpublished := self.publisher.unpublished(delivery.job_id):
                return self.publisher.publish(*unpublished)
            return self._run_counted(job, kind, delivery)
        except (Retry, Ignore, Reject, StoreUnavailable):
            raise
        except TryAgain as again:
            log.info("job %s: %s; next try in %.1f s", delivery.job_id, again, again.wait_s)
            self.heard.again(again.code)
            raise self._again(task, delivery, JobFailed(again.code), again.wait_s) from again
        except GoesBack as exc:
            log.info("job %s goes back: this process ends", delivery.job_id)
            self._uncount(delivery.job_id, delivery.attempt)
            self.heard.returned("ending")
            raise Reject("this process ends", requeue=True) from exc
        except BaseException as exc:  # noqa: BLE001 - see the module's docstring
            return self._fail(task, kind, delivery, exc)
        finally:
            self._running.discard((delivery.job_id, delivery.attempt))

    def _forward_unless_in_place(
        self, task: "Task[Any, Any]", job: Job, delivery: Delivery
    ) -> None:
        """Send a job that came by the shared default queue on to the workers that serve it, or to
        wait in its lane: bulk jobs take no places of interactive ones."""
        served = any(
            kind == model_task(job.task) and job.model in (None, model_id)
            for kind, model_id in self.models.served
        )
        queue = queue_for(job.task, job.model, job.lane)
        if served and (job.lane != BULK or is_bulk(delivery.queue or queue)):
            return
        if queue == delivery.queue:
            raise JobFailed(LACKS[model_task(job.task)])
        log.info("job %s sent on to queue %s", delivery.job_id, queue)
        task.signature_from_request(task.request, queue=queue).apply_async()
        raise Ignore

    def _run_counted(self, job: Job, kind: str, delivery: Delivery) -> JobResult:
        """Count this delivery, then run the job unless it has ended, or ended its workers.

        A job that was delivered before, and never ended, is suspect: it may have ended its worker.
        Suspects run one at a time, and are not counted before their turn, so that one of them
        takes no other along: what only stood by is not condemned with it.
        """
        at = utcnow()
        record = self._count(kind, delivery, at, only_first=True)
        this_attempt = record.result is None and record.attempt == delivery.attempt
        if this_attempt and record.started_at != at:
            self.heard.redelivered(kind)
            with self._suspects:
                return self._run_unless_ended(job, self._count(kind, delivery, utcnow()), delivery)
        return self._run_unless_ended(job, record, delivery)

    def _run_unless_ended(self, job: Job, record: Record, delivery: Delivery) -> JobResult:
        if record.result is not None:
            return record.result
        if record.attempt > delivery.attempt:
            log.info("job %s is in attempt %d by now", delivery.job_id, record.attempt)
            raise Ignore
        if record.deliveries(delivery.attempt) > self.max_deliveries:
            raise JobFailed(ErrorCode.JOB_POISONED)
        return self.publisher.publish(self._succeed(job, delivery))

    def _count(
        self, kind: str, delivery: Delivery, at: datetime, only_first: bool = False
    ) -> Record:
        """Mark the job as running, and this delivery as one that its worker may die of."""
        job_id, attempt, worker = delivery.job_id, delivery.attempt, delivery.worker
        record, counted, terms = None, (job_id, attempt), delivery.terms
        self._running.add(counted)
        try:
            record = patiently(
                lambda: self.store.start(job_id, kind, attempt, worker, at, only_first, terms),
                self.patience_s,
            )
            return record
        finally:
            if record is None or record.started_at != at:
                self._running.discard(counted)

    def _uncount(self, job_id: str, attempt: int) -> bool:
        """Undo the count of a delivery that goes back without its worker having died; tries once.
        False, and an entry in the log, when the store is away."""
        try:
            self.store.return_delivery(job_id, attempt)
        except StoreUnavailable as exc:
            log.warning("job %s goes back, counted as delivered: %s", job_id, exc)
            return False
        return True

    def _succeed(self, job: Job, delivery: Delivery) -> JobResult:
        started = utcnow()
        if job.expires_at is not None and started >= job.expires_at:
            raise JobFailed(ErrorCode.JOB_EXPIRED)
        queue_s = (started - job.submitted_at).total_seconds() if job.submitted_at else None
        queue_ms = None if queue_s is None else round(max(0.0, queue_s) * 1_000, 3)
        if isinstance(job, Chunk):
            timings = Timings(queue_ms=queue_ms)
            return self.run_chunk(job, delivery).model_copy(update={"timings": timings})
        product = self._explained(job, delivery) if isinstance(job, EXPLAINED) else self.run(job)
        return JobResult(
            job_id=delivery.job_id,
            task=job.task,
            state=JobState.SUCCEEDED,
            attempts=delivery.attempt,
            image_ref=delivery.image_ref,
            **product.answer.fields,
            **self.models.facts_of(job),
            image=product.image,
            timings=product.timings.model_copy(update={"queue_ms": queue_ms}),
            finished_at=utcnow(),
        )

    def _explained(self, job: CaptionJob | MatchJob | ExplainJob, delivery: Delivery) -> Product:
        """A job's run, and then the files of what it explains: the result says where they are."""
        sink = None if job.explain is None else job.explain.sink
        if sink is None:
            return self.run(job)
        self.sinks.check(sink)
        if job.explain is not None and job.explain.pictures and find_spec("matplotlib") is None:
            detail = "pictures need matplotlib: pip install 'captionq[report]'"
            raise Fault(ErrorCode.SINK_NOT_ALLOWED, detail)
        job_id = delivery.job_id
        product = self.run(_repeatable(job.model_copy(update={"job_id": job_id}), job_id))
        if product.answer.explained is not None:
            for name, data in product.answer.explained.files(job_id):
                self.sinks.put(sink, job_id, name.removeprefix(f"{job_id}."), data)
        return product

    def _fail(
        self, task: "Task[Any, Any]", kind: str, delivery: Delivery, exc: BaseException
    ) -> JobResult:
        """Another try (raises Retry), or the failed result, stored."""
        failure = public_failure(exc)
        bounced = failure.code is ErrorCode.SCHEMA_UNSUPPORTED
        tries = delivery.bounces + 1 if bounced else delivery.attempt
        retry_after_s = exc.retry_after_s if isinstance(exc, Fault) else None
        wait_s = delay_s(failure.code, tries, self.rng, retry_after_s)
        unforeseen = exc if failure.code is ErrorCode.INTERNAL_ERROR else None
        log.log(
            logging.ERROR if unforeseen else logging.INFO,
            "job %s: attempt %d: %s (%s); %s",
            delivery.job_id,
            delivery.attempt,
            failure.code.value,
            exc,
            "given up" if wait_s is None else f"next try in {wait_s:.1f} s",
            exc_info=unforeseen,
        )
        if wait_s is not None:
            self.heard.again(failure.code)
            raise self._again(task, delivery, failure, wait_s, bounced)
        failed = _without_result(kind, delivery, failure, delivery.attempt)
        dead = letter(failed, failure, delivery.payload, delivery.queue, str(exc))
        return self.publisher.publish(failed, dead, delivery.terms)

    def _again(
        self,
        task: "Task[Any, Any]",
        delivery: Delivery,
        failure: JobFailed,
        wait_s: float,
        bounced: bool = False,
    ) -> Retry:
        """Send the message again, to a queue that is consumed here; a message that cannot be sent
        stays: Celery would drop it."""
        queue = delivery.queue if delivery.queue in self.queues else DEFAULT_QUEUE
        headers = {**(task.request.headers or {}), BOUNCES: delivery.bounces + bounced}
        options: dict[str, Any] = {
            "queue": queue,
            "headers": headers,
            "argsrepr": "()",
            "kwargsrepr": delivery.image_ref or "",
        }
        task.request.retries = delivery.retries  # Celery adds one to it, whatever it was
        try:
            return task.retry(exc=failure, countdown=self.delayed_s(wait_s), throw=False, **options)
        except Reject as rejected:
            if (delivery.job_id, delivery.attempt) in self._running:
                self._uncount(delivery.job_id, delivery.attempt)
            raise Reject(repr(rejected), requeue=True) from rejected


def _repeatable(job: Job, job_id: str) -> Any:
    """A job that says the same in every attempt: samples that nobody has chosen a seed for are
    drawn by its id's. Files of one attempt are then in place of those of another."""
    if not isinstance(job, CaptionJob) or not job.options.do_sample or job.options.seed is not None:
        return job
    seed = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:6])
    return job.model_copy(update={"options": job.options.model_copy(update={"seed": seed})})


def _without_result(kind: str, delivery: Delivery, failure: JobFailed, attempts: int) -> JobResult:
    cancelled = failure.code is ErrorCode.JOB_CANCELLED
    return JobResult(
        job_id=delivery.job_id,
        task=kind,
        state=JobState.CANCELLED if cancelled else JobState.FAILED,
        attempts=attempts,
        image_ref=delivery.image_ref,
        error=JobError.of(failure),
        timings=Timings(),
        finished_at=utcnow(),
    )
