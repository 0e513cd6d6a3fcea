"""The client: submit jobs, wait for their results, look at them, cancel them."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from producer import embedded
from producer.contract import Job, JobResult
from producer.errors import BrokerFull, BrokerUnavailable, StoreFull, StoreUnavailable, UnknownJob
from producer.publisher import Publisher, attempt_timeout_s, pauses
from producer.redis_store import RedisStore
from producer.settings import ProducerSettings
from producer.store import Record, Store
from producer.submission import Unsent, batches, cancellation, to_send
from producer.tracing import begin
from producer.watch import Watch
from producer.wire import WireJob

__all__ = [
    "BrokerFull",
    "BrokerUnavailable",
    "Client",
    "JobHandle",
    "StoreFull",
    "StoreUnavailable",
    "UnknownJob",
]


@dataclass(frozen=True)
class JobHandle:
    """A job that was submitted."""

    job_id: str
    _client: "Client" = field(repr=False, compare=False)

    def result(self, timeout_s: float = 300) -> JobResult:
        """See `Client.result`."""
        return self._client.result(self.job_id, timeout_s)

    def status(self) -> Record | None:
        """See `Client.status`."""
        return self._client.status(self.job_id)

    def cancel(self) -> JobResult:
        """See `Client.cancel`."""
        return self._client.cancel(self.job_id)


class Client:
    """Submits jobs and reads their results; safe to share between threads.

    What is not given comes from the settings, these from `CAPTIONQ_*` in the environment; with
    no broker at all, the embedded Redis server of `CAPTIONQ_HOME` is started or joined.

    Args:
        broker_url: Celery broker, e.g. redis://host:6379/0.
        results_url: Redis of the results store; the broker by default.
        settings: in place of the environment.
        store: in place of a RedisStore at `results_url`.

    Every method raises BrokerUnavailable (or its subclasses BrokerFull, StoreUnavailable,
    StoreFull) in bounded time when the service cannot be reached.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        results_url: str | None = None,
        *,
        settings: ProducerSettings | None = None,
        store: Store | None = None,
    ) -> None:
        settings = settings or ProducerSettings()
        broker_url = broker_url or settings.broker_url or embedded.ensure(settings.home)
        self._timeout_s = settings.submit_timeout_s
        self._attempt_s = attempt_timeout_s(self._timeout_s)
        self._store = store or RedisStore(
            settings.results_url_beside(broker_url, results_url),
            socket_timeout_s=self._attempt_s,
            **settings.keeping,
        )
        self._keys = settings.keys
        self._unsent = Unsent()
        self._tracing = begin(settings.tracing, "captionq-client")
        self._publisher = Publisher(
            broker_url, self._timeout_s, settings.sentinel_master, settings.rabbitmq_queues
        )

    def submit(self, job: Job) -> JobHandle:
        """Record a job as queued and send it. An id that is known already is that job.

        Should this process die between the two, workers find the job and send it.

        Tries for the settings' `submit_timeout_s`; when that fails, the job is unknown again, and
        can be submitted anew. (Should the results store be lost too, this client remembers the id,
        and sends it when it is submitted again; workers would find it in a few minutes.)

        Raises:
            JobFailed: job_invalid, when the job is too large, or cannot be signed.
        """
        return self.submit_many([job])[0]

    def submit_many(self, jobs: Iterable[Job]) -> list[JobHandle]:
        """Submit jobs in batches, a few round trips each; handles come in the jobs' order.

        Raises:
            BrokerUnavailable: a batch could not be sent; `submitted` names the jobs of the
                batches before it.
            JobFailed: job_invalid, when a job is too large, or cannot be signed; none is sent.
        """
        handles: list[JobHandle] = []
        for batch in batches(jobs, self._keys):
            try:
                self._submit(batch)
            except BrokerUnavailable as exc:
                exc.submitted = tuple(handle.job_id for handle in handles)
                raise
            handles += [JobHandle(str(job.job_id), self) for job in batch]
        return handles

    def result(self, job_id: str, timeout_s: float = 300) -> JobResult:
        """Wait until a job has ended, however it did; `raise_for_state()` tells good from bad.

        Raises:
            TimeoutError: it has not ended after `timeout_s` seconds.
            UnknownJob: no such job.
        """
        record = self._known(job_id)
        return record.result or next(self._store.wait([job_id], timeout_s))

    def as_completed(
        self, jobs: Iterable[JobHandle | str], timeout_s: float = 300
    ) -> Iterator[JobResult]:
        """Yield the results of these jobs (handles or ids) as they end, each once.

        Raises:
            TimeoutError: some have not ended after `timeout_s` seconds.
        """
        ids = [job.job_id if isinstance(job, JobHandle) else job for job in jobs]
        return self._store.wait(ids, timeout_s)

    def watch(self) -> Watch:
        """Results of jobs that go on being submitted, as they end, over one subscription."""
        return self._store.watch()

    def status(self, job_id: str) -> Record | None:
        """What is known of a job; None for an unknown one."""
        return self._store.get(job_id)

    def cancel(self, job_id: str) -> JobResult:
        """End a job as cancelled, and return its result; one that has ended stays as it is.

        A worker that runs it may go on, its result is not kept.

        Raises:
            UnknownJob: no such job.
        """
        record = self._known(job_id)
        return record.result or self._store.finish(cancellation(record))

    def close(self) -> None:
        """Close the connections; an embedded server runs on."""
        self._publisher.close()
        self._store.close()
        if self._tracing is not None:
            self._tracing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _known(self, job_id: str) -> Record:
        record = self._store.get(job_id)
        if record is None:
            raise UnknownJob(job_id)
        return record

    def _submit(self, batch: list[Job]) -> None:
        if self._tracing is None:
            self._send(batch, {})
            return
        with self._tracing.submitting(batch) as traceparents:
            self._send(batch, traceparents)

    def _send(self, batch: list[Job], traceparents: Mapping[str, str]) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        due = batch
        try:
            known = self._recorded(batch, deadline_s)
            due = to_send(batch, known, self._unsent)
            if traceparents and isinstance(self._store, RedisStore):
                self._store.trace(traceparents)
            self._publisher.publish(WireJob.traced(due, traceparents), deadline_s)
        except BrokerUnavailable as exc:
            self._unsent.add(due)
            if isinstance(exc, BrokerFull) or not isinstance(exc, StoreUnavailable):
                with suppress(StoreUnavailable):
                    self._store.forget(*batch)
                    self._unsent.discard(due)
            raise
        self._unsent.discard(due)

    def _recorded(self, batch: list[Job], deadline_s: float) -> list[Record | None]:
        further = pauses(deadline_s, self._attempt_s)
        while True:
            try:
                return self._store.create_many(batch)
            except StoreUnavailable as exc:
                pause_s = None if isinstance(exc, StoreFull) else next(further, None)
                if pause_s is None:
                    raise
                time.sleep(pause_s)
