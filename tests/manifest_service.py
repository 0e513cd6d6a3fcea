"""What a run needs of a client, in this process: jobs end as soon as they are submitted."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from producer.contract import Chunk, Job, JobResult
from producer.memory_store import MemoryStore
from producer.memory_watch import MemoryWatch
from producer.store import Record
from producer.submission import prepared
from tests.chunk_worker import done


class InProcess:
    """Answers chunks at once, or, with `rng`, a few at each look, in any order.

    `answered` counts how often each job was carried out, `images` how often each was asked for.
    """

    def __init__(
        self,
        rng: random.Random | None = None,
        answer: Callable[[Any], JobResult] = done,
    ) -> None:
        self.store = MemoryStore()
        self.answered: Counter[str] = Counter()
        self.images: Counter[str] = Counter()
        self._rng = rng
        self._answer = answer
        self._waiting: list[Job] = []
        self.most_waiting = 0

    def submit_many(self, jobs: Iterable[Job]) -> None:
        for one in jobs:
            job = prepared(one)
            if self.store.create(job) is None:
                self._waiting.append(job)
        self.most_waiting = max(self.most_waiting, len(self._waiting))
        if self._rng is None:
            self.work(len(self._waiting))

    def watch(self) -> MemoryWatch:
        return _WorkingWatch(self)

    def status(self, job_id: str) -> Record | None:
        return self.store.get(job_id)

    def work(self, count: int) -> None:
        if self._rng is not None:
            self._rng.shuffle(self._waiting)
        for job in self._waiting[:count]:
            self.answered[str(job.job_id)] += 1
            self.images.update(job.images if isinstance(job, Chunk) else ())
            self.store.finish(self._answer(job))
        del self._waiting[:count]

    def tick(self) -> None:
        if self._rng is not None:
            self.work(self._rng.randint(1, 3))


class _WorkingWatch(MemoryWatch):
    """Has some work done at each look."""

    def __init__(self, service: InProcess) -> None:
        super().__init__(service.store.ended)
        self._service = service

    def next(self, timeout_s: float) -> list[JobResult]:
        self._service.tick()
        return super().next(min(timeout_s, 0.001))
