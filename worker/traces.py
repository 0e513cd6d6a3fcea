"""What a worker adds to a job's trace: a span for each try, its stages in it, and for callbacks.

Stages are told of when an image, or the texts of a job, came through them: nothing is done for a
trace while they are worked on. Where an image waited for room between fetching and decoding, that
is not shown.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from producer.contract import ErrorCode, JobResult
from producer.tracing import BATCH_ID, JOB_ID, TASK, TRACEPARENT, Tracing
from worker.callbacks.outbox import Told
from worker.heard import Heard, Letter
from worker.logs import TRACE_ID
from worker.pipeline import Product

__all__ = ["Traces"]


class _Try(NamedTuple):
    job_id: str
    work: Any
    begin_ns: int
    begin_s: float
    """The same moment, by time.monotonic()."""
    of_many: bool
    """Whether the job is a chunk."""

    def at_ns(self, moment_s: float) -> int:
        """A moment of time.monotonic()."""
        return self.begin_ns + int((moment_s - self.begin_s) * 1e9)


class Traces:
    """Spans of one worker process.

    Args:
        traceparent_of: what the record of a job (`job_id=`) or batch (`batch_id=`) says; None for
            none. May not raise.
    """

    def __init__(self, tracing: Tracing, traceparent_of: Callable[..., str | None]) -> None:
        self._tracing, self._traceparent_of = tracing, traceparent_of
        self._here = threading.local()

    def heard(self) -> Heard:
        """What is to be told to this."""
        return Heard(
            begun=self._begun,
            produced=self._produced,
            judged=self._judged,
            ended=self._ended,
            again=self._again,
            returned=self._returned,
        )

    @contextmanager
    def telling(self, told: Told) -> Iterator[Mapping[str, str]]:
        """The block in which a callback is tried: the headers that it has for its trace."""
        of = {JOB_ID: told.job_id} if told.job_id else {BATCH_ID: told.batch_id or ""}
        traceparent = self._traceparent_of(job_id=told.job_id or "", batch_id=told.batch_id or "")
        span = self._tracing.span(
            "callback",
            self._tracing.context(traceparent),
            kind="CLIENT",
            attributes={**of, "captionq.try": told.tried + 1},
        )
        try:
            yield {TRACEPARENT: self._tracing.carried(span)}
        except BaseException as exc:
            self._tracing.failed(span, type(exc).__name__)
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left, and end."""
        self._tracing.close()

    def _begun(self, task: str, job_id: str, headers: Mapping[str, Any]) -> None:
        said = headers.get(TRACEPARENT) or self._traceparent_of(job_id=job_id)
        begin_ns, begin_s = time.time_ns(), time.monotonic()
        attributes = {JOB_ID: job_id, TASK: task}
        parent = self._tracing.context(said)
        work = self._tracing.span(f"work {task}", parent, begin_ns, "CONSUMER", attributes)
        self._here.tried = _Try(job_id, work, begin_ns, begin_s, task.endswith("_chunk"))
        TRACE_ID.set(self._tracing.trace_id(work))

    def _produced(self, _: str, product: Product) -> None:
        tried = self._tried()
        if tried is not None and not tried.of_many:
            self._stages(tried.work, tried, product)

    def _judged(self, index: int, outcome: Product | ErrorCode) -> None:
        tried = self._tried()
        if tried is None or not tried.work.is_recording():
            return
        begin_ns, end_ns = tried.begin_ns, time.time_ns()
        if isinstance(outcome, Product):
            first_s = outcome.given_s if outcome.began_s is None else outcome.began_s
            begin_ns = begin_ns if first_s is None else tried.at_ns(first_s)
        image = self._tracing.span(
            "image", tried.work, begin_ns, attributes={"captionq.image": index}
        )
        if isinstance(outcome, Product):
            end_ns = self._stages(image, tried, outcome) or end_ns
        else:
            self._tracing.failed(image, outcome.value)
        image.end(end_ns)

    def _ended(self, result: JobResult, _: Letter) -> None:
        tried = self._tried()
        if tried is None or tried.job_id != result.job_id:
            return
        queue_ms = None if result.timings is None else result.timings.queue_ms
        if queue_ms is not None:
            self._part(tried.work, "queue", tried.begin_ns - _ns(queue_ms), tried.begin_ns)
        published_ns = int(result.finished_at.timestamp() * 1e9)
        self._part(tried.work, "publish", published_ns, time.time_ns())
        tried.work.set_attribute("captionq.attempts", result.attempts)
        self._end("" if result.error is None else result.error.code.value)

    def _again(self, code: ErrorCode) -> None:
        self._end(code.value)

    def _returned(self, reason: str) -> None:
        self._end(f"returned: {reason}")

    def _tried(self) -> _Try | None:
        tried: _Try | None = getattr(self._here, "tried", None)
        return tried

    def _end(self, why: str) -> None:
        """End the span of this thread's try, which has failed if there is a reason."""
        if (tried := self._tried()) is None:
            return
        self._here.tried = None
        if why:
            self._tracing.failed(tried.work, why)
        tried.work.end()

    def _stages(self, parent: Any, tried: _Try, product: Product) -> int | None:
        """The spans of what an image went through; the end of the last of them."""
        timings, end_ns = product.timings, None
        if product.began_s is not None and timings.fetch_ms is not None:
            begin_ns = tried.at_ns(product.began_s)
            end_ns = begin_ns + _ns(timings.fetch_ms)
            self._part(parent, "fetch", begin_ns, end_ns)
        if product.given_s is None or timings.infer_ms is None:
            return end_ns
        given_ns = tried.at_ns(product.given_s)
        if timings.decode_ms is not None:
            self._part(parent, "decode", given_ns - _ns(timings.decode_ms), given_ns)
        batch = {} if timings.batch_size is None else {"captionq.batch_size": timings.batch_size}
        end_ns = given_ns + _ns(timings.infer_ms)
        self._part(parent, "infer", given_ns, end_ns, batch)
        return end_ns

    def _part(
        self,
        work: Any,
        name: str,
        begin_ns: int,
        end_ns: int,
        attributes: Mapping[str, int] | None = None,
    ) -> None:
        self._tracing.span(name, work, begin_ns, attributes=attributes).end(max(begin_ns, end_ns))


def _ns(milliseconds: float) -> int:
    return int(milliseconds * 1e6)
