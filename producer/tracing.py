"""One trace from submission to callback, by OpenTelemetry: off unless CAPTIONQ_TRACING says so.

A trace travels as W3C's `traceparent` (https://www.w3.org/TR/trace-context/): as a header of the
message of a job, as a field of its record (for whatever sends the message again, and for its
callback), and as a header of its callback. OpenTelemetry is imported when tracing is begun, and not
before.

Where spans go is OpenTelemetry's own matter: OTEL_EXPORTER_OTLP_ENDPOINT and its like.
"""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from producer.contract import Job
from producer.queues import queue_for
from producer.wire import TRACEPARENT

__all__ = ["TRACEPARENT", "Tracing", "TracingUnavailable", "begin"]

JOB_ID = "captionq.job_id"
TASK = "captionq.task"
JOBS = "captionq.jobs"
BATCH_ID = "captionq.batch_id"


class TracingUnavailable(ValueError):  # noqa: N818 - as other faults of settings
    """Traces are wanted, and the extra is not installed."""

    def __init__(self) -> None:
        super().__init__("CAPTIONQ_TRACING=true needs: pip install 'captionq[tracing]'")


class Tracing:
    """Spans of one process, and the contexts that they travel in.

    Args:
        provider: an opentelemetry TracerProvider; it is shut down with this.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace, self._provider = trace, provider
        self._tracer = provider.get_tracer("captionq")
        self._propagator = TraceContextTextMapPropagator()
        self._lock = threading.Lock()
        self._parents: dict[str, Any] = {}

    @contextmanager
    def parented(self, job_id: str, headers: Mapping[str, str]) -> Iterator[None]:
        """The block in which a job is submitted for a request with these headers (lower case)."""
        with self._children({job_id}, self.context(headers.get(TRACEPARENT))):
            yield

    @contextmanager
    def together(
        self,
        name: str,
        job_ids: Collection[str],
        headers: Mapping[str, str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Iterator[str]:
        """The block in which these jobs are submitted for one request, with these headers (lower
        case), or one event: a span, and one trace for all of them. What names it."""
        asked_in = self.context((headers or {}).get(TRACEPARENT))
        span = self.span(
            name, asked_in, kind="SERVER", attributes={**(attributes or {}), JOBS: len(job_ids)}
        )
        try:
            with self._children(job_ids, self._trace.set_span_in_context(span)):
                yield self.carried(span)
        except BaseException as exc:
            self.failed(span, type(exc).__name__)
            raise
        finally:
            span.end()

    @contextmanager
    def _children(self, job_ids: Collection[str], parent: Any) -> Iterator[None]:
        with self._lock:
            self._parents |= dict.fromkeys(job_ids, parent)
        try:
            yield
        finally:
            with self._lock:
                for job_id in job_ids:
                    self._parents.pop(job_id, None)

    @contextmanager
    def submitting(self, jobs: Sequence[Job]) -> Iterator[dict[str, str]]:
        """The block in which prepared jobs are recorded and sent: a span each, and what travels
        with each job, by its id."""
        with ExitStack() as ended:
            spans = {}
            for job in jobs:
                queue = queue_for(job.task, job.model, job.lane)
                spans[str(job.job_id)] = span = self._tracer.start_span(
                    f"submit {job.task}",
                    context=self._parents.get(str(job.job_id)),
                    kind=self._trace.SpanKind.PRODUCER,
                    attributes={
                        JOB_ID: str(job.job_id),
                        TASK: job.task,
                        "messaging.system": "celery",
                        "messaging.destination.name": queue,
                    },
                )
                ended.callback(span.end)
            try:
                yield {job_id: self.carried(span) for job_id, span in spans.items()}
            except BaseException as exc:
                for span in spans.values():
                    self.failed(span, type(exc).__name__)
                raise

    def context(self, traceparent: str | None) -> Any:
        """The context that a traceparent names; an empty one for none, or for what is none."""
        carrier = {TRACEPARENT: traceparent} if isinstance(traceparent, str) else {}
        if not carrier:
            return None
        from opentelemetry.context import Context

        return self._propagator.extract(carrier, Context())

    def carried(self, span: Any) -> str:
        """The traceparent that names a span."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return carrier.get(TRACEPARENT, "")

    def span(
        self,
        name: str,
        parent: Any,
        begin_ns: int | None = None,
        kind: str = "INTERNAL",
        attributes: Mapping[str, str | int] | None = None,
    ) -> Any:
        """A span that has begun, now or at a moment (nanoseconds since 1970); `parent` is a context
        or a span."""
        if isinstance(parent, self._trace.Span):
            parent = self._trace.set_span_in_context(parent)
        return self._tracer.start_span(
            name,
            context=parent,
            kind=self._trace.SpanKind[kind],
            start_time=begin_ns,
            attributes=attributes,
        )

    def trace_id(self, span: Any) -> str:
        """The trace that a span is of, in hexadecimal."""
        return f"{span.get_span_context().trace_id:032x}"

    def failed(self, span: Any, why: str) -> None:
        """Say that what a span is of has failed: a code or a class, no text that quotes."""
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, why))

    def close(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()


def begin(wanted: bool, service: str) -> Tracing | None:
    """Tracing of a process of this name, sent by OTLP over HTTP; None where it is not wanted.

    Raises:
        TracingUnavailable: it is, and cannot be.
    """
    if not wanted:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise TracingUnavailable from exc
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
