"""The results store's three forms, for one suite: in memory, in Redis, and its asyncio twin."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from producer.async_redis_store import AsyncRedisStore
from producer.contract import CaptionJob, JobResult, JobState
from producer.store import Store

MakeStore = Callable[..., Store]
SUBMITTED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


class Blocking:
    """An AsyncRedisStore with the face of a Store, on an event loop of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._lock = threading.Lock()
        self._store = self._run(self._make(url, options))

    async def _make(self, url: str, options: dict[str, Any]) -> AsyncRedisStore:
        return AsyncRedisStore(url, **options)

    def _run(self, coroutine: Any) -> Any:
        with self._lock:
            return self._runner.run(coroutine)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)
        return lambda *args, **options: self._run(method(*args, **options))

    def wait(self, job_ids: Iterable[str], timeout_s: float) -> Iterator[JobResult]:
        results = self._store.wait(job_ids, timeout_s)
        try:
            while True:
                yield self._run(anext(results))
        except StopAsyncIteration:
            return
        finally:
            self._run(results.aclose())

    def close(self) -> None:
        self._run(self._store.close())
        self._runner.close()


def job(job_id: str = "a", image: str = "https://example.com/cat.jpg", **told: Any) -> CaptionJob:
    return CaptionJob(job_id=job_id, image=image, submitted_at=SUBMITTED, **told)


def ended(job_id: str = "a", state: JobState = JobState.SUCCEEDED, attempts: int = 1) -> JobResult:
    return JobResult(
        job_id=job_id, task="caption", state=state, attempts=attempts, finished_at=SUBMITTED
    )
