"""The results store of a worker, which tells of each job that ends by its hand."""

from collections.abc import Callable, Mapping
from typing import Any

from producer.contract import JobResult
from producer.errors import StoreUnavailable
from producer.redis_store import RedisStore
from producer.terms import Terms

__all__ = ["Ended", "ToldStore"]

Ended = Callable[[JobResult, Mapping[str, str] | None], object]
"""(result, the fields of its dead letter if it has one). Must not raise."""


class ToldStore(RedisStore):
    """A RedisStore. `told` hears of each result that was the first of its job, once it is written:
    of success, failure, cancellation and refusal alike, whoever wrote it here."""

    def __init__(self, url: str, told: Ended, **keeping: Any) -> None:
        super().__init__(url, **keeping)
        self._told = told

    def traceparent(self, *, job_id: str = "", batch_id: str = "") -> str | None:
        """What the record of a job, or of a batch, says of its trace; None also where it cannot be
        read."""
        call = (
            self._registry.batch_traceparent(batch_id)
            if batch_id
            else self._ledger.traceparent(job_id)
        )
        try:
            return self._run(call)
        except StoreUnavailable:
            return None

    def finish(
        self,
        result: JobResult,
        letter: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> JobResult:
        """See `Store.finish`."""
        kept = super().finish(result, letter, terms)
        if (kept.finished_at, kept.state) == (result.finished_at, result.state):
            self._told(result, letter)
        return kept
