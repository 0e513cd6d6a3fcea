"""What a worker adds to a job's trace: a span for each try, its stages in it, and for callbacks.

Stages are told of when a try has ended, from the timings of its result: so nothing is done for a
trace while a job is worked on. A stage ends where the next begins: where an image waited for room
between them, that is not shown.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from producer.contract import ErrorCode, JobResult, JobState
from producer.tracing import JOB_ID, TASK, TRACEPARENT, Tracing
from worker.callbacks.outbox import Told
from worker.heard import Heard, Letter

__all__ = ["Traces"]


class _Try(NamedTuple):
    job_id: str
    task: str
    parent: Any
    begin_ns: int


class Traces:
    """Spans of one worker process.

    Args:
        traceparent_of: what the record of a job says; None for none. May not raise.
    """

    def __init__(self, tracing: Tracing, traceparent_of: Callable[[str], str | None]) -> None:
        self._tracing, self._traceparent_of = tracing, traceparent_of
        self._here = threading.local()

    def heard(self) -> Heard:
        """What is to be told to this."""
        return Heard(
            begun=self._begun, ended=self._ended, again=self._again, returned=self._returned
        )

    @contextmanager
    def telling(self, told: Told) -> Iterator[Mapping[str, str]]:
        """The block in which a callback is tried: the headers that it has for its trace."""
        traceparent = self._traceparent_of(told.job_id) if told.job_id else None
        span = self._tracing.span(
            "callback",
            self._tracing.context(traceparent),
            kind="CLIENT",
            attributes={JOB_ID: told.job_id or "", "captionq.try": told.tried + 1},
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
        said = headers.get(TRACEPARENT) or self._traceparent_of(job_id)
        self._here.tried = _Try(job_id, task, self._tracing.context(said), time.time_ns())

    def _ended(self, result: JobResult, _: Letter) -> None:
        code = "" if result.error is None else result.error.code.value
        tried = self._try()
        if tried is None or tried.job_id != result.job_id:
            return
        work = self._work(tried, code, result.attempts)
        published_ns = int(result.finished_at.timestamp() * 1e9)
        if result.state is JobState.SUCCEEDED and result.timings is not None:
            self._stages(work, tried, result, published_ns)
        self._part(work, "publish", published_ns, time.time_ns())
        work.end()

    def _stages(self, work: Any, tried: _Try, result: JobResult, end_ns: int) -> None:
        timings = result.timings
        if timings is None:
            return
        if timings.queue_ms is not None:
            self._part(work, "queue", tried.begin_ns - _ns(timings.queue_ms), tried.begin_ns)
        if timings.fetch_ms is not None:
            self._part(work, "fetch", tried.begin_ns, tried.begin_ns + _ns(timings.fetch_ms))
        if timings.infer_ms is None:
            return
        infer_ns = end_ns - _ns(timings.infer_ms)
        if timings.decode_ms is not None:
            self._part(work, "decode", infer_ns - _ns(timings.decode_ms), infer_ns)
        batch = {} if timings.batch_size is None else {"captionq.batch_size": timings.batch_size}
        self._part(work, "infer", infer_ns, end_ns, batch)

    def _again(self, code: ErrorCode) -> None:
        self._broken_off(code.value)

    def _returned(self, reason: str) -> None:
        self._broken_off(f"returned: {reason}")

    def _broken_off(self, why: str) -> None:
        if (tried := self._try()) is not None:
            self._work(tried, why, None).end()

    def _try(self) -> _Try | None:
        tried: _Try | None = getattr(self._here, "tried", None)
        self._here.tried = None
        return tried

    def _work(self, tried: _Try, code: str, attempts: int | None) -> Any:
        attributes: dict[str, Any] = {JOB_ID: tried.job_id, TASK: tried.task}
        if attempts is not None:
            attributes["captionq.attempts"] = attempts
        work = self._tracing.span(
            f"work {tried.task}", tried.parent, tried.begin_ns, "CONSUMER", attributes
        )
        if code:
            self._tracing.failed(work, code)
        return work

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
