"""Results of a set of jobs that grows, in this process's memory."""

from collections.abc import Callable, Collection, Iterable

from producer.contract import JobResult


class MemoryWatch:
    """A `Watch` (producer/watch.py) on a MemoryStore, whose `ended` is given."""

    def __init__(self, ended: Callable[[Collection[str], float], list[JobResult]]) -> None:
        self._ended = ended
        self._missing: dict[str, None] = {}

    def add(self, job_ids: Iterable[str]) -> None:
        """See `Watch.add`."""
        self._missing |= dict.fromkeys(job_ids)

    def next(self, timeout_s: float) -> list[JobResult]:
        """See `Watch.next`."""
        if not self._missing:
            return []
        results = self._ended(self._missing, timeout_s)
        for result in results:
            del self._missing[result.job_id]
        return results

    def close(self) -> None:
        """See `Watch.close`."""
