"""A worker without a model for chunks: answers each at once, as fast as it can.

python -m tests.chunk_worker REDIS_URL [SECONDS_A_CHUNK]

An image whose name has `bad` in it fails as http_4xx. A chunk that is recorded and in no queue, as
after a producer that died between the two, is found after a while, as workers' reconciler does.
"""

import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import redis

from producer.contract import (
    CaptionChunk,
    Chunk,
    EmbedChunk,
    ErrorCode,
    ItemResult,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    MatchChunk,
    parse_job,
    utcnow,
)
from producer.ledger import Ledger
from producer.queues import TASK_NAMES
from producer.redis_store import RedisStore
from tests.stand_in_model import MODEL, caption, embedding, matches
from tests.stand_in_worker import succeeded

QUEUES = tuple(f"captionq.{of}{lane}" for of in ("caption", "match") for lane in (".bulk", ""))
AT_ONCE = 16
IDLE_S = 1.0
LEDGER = Ledger(86_400, 604_800)


def item(chunk: Chunk, index: int) -> ItemResult:
    uri = chunk.images[index]
    if "bad" in uri:
        error = JobError.of(JobFailed(ErrorCode.HTTP_4XX))
        state = JobState.FAILED
        return ItemResult(index=index, image_ref=uri, state=state, attempts=1, error=error)
    state = JobState.SUCCEEDED
    said: dict[str, Any]
    match chunk:
        case CaptionChunk():
            said = {"captions": (caption(f"a picture of {uri}"),)}
        case EmbedChunk():
            said = {"embeddings": (embedding(uri, chunk.encoding),)}
        case MatchChunk():
            said = {"matches": matches(uri, chunk.one(index).texts)}
    return ItemResult(index=index, image_ref=uri, state=state, attempts=1, **said)


def answer(chunk: Chunk) -> JobResult:
    items = tuple(item(chunk, index) for index in range(len(chunk.images)))
    counts: dict[str, int] = {}
    for one in items:
        counts[one.outcome] = counts.get(one.outcome, 0) + 1
    return JobResult(
        job_id=str(chunk.job_id),
        task=chunk.task,
        state=JobState.SUCCEEDED,
        attempts=1,
        items=items,
        counts=counts,
        model=MODEL,
        finished_at=utcnow(),
    )


def done(job: Job) -> JobResult:
    """The result of any job."""
    return answer(job) if isinstance(job, Chunk) else succeeded(job)


class ChunkWorker:
    """Serves one Redis; `step` answers what waits."""

    def __init__(self, url: str, seconds_a_chunk: float = 0.0) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self._store = RedisStore(url)
        self._seconds_a_chunk = seconds_a_chunk
        self._busy_s = time.monotonic()

    def step(self) -> None:
        taken = self._redis.brpop(QUEUES, timeout=0.2)
        if taken is not None:
            queue, raw = taken
            more = self._redis.rpop(queue, AT_ONCE) or []
            self._answer([json.loads(one)["headers"]["id"] for one in [raw, *more]])
            self._busy_s = time.monotonic()
        elif time.monotonic() > self._busy_s + IDLE_S:
            self._answer(self._stranded())
            self._busy_s = time.monotonic()

    def _answer(self, ids: Sequence[str]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hmget(LEDGER.key(job_id), "task", "job", "result")
            records = pipeline.execute()
        calls = []
        for task, text, result in records:
            if text is not None and result is None:
                time.sleep(self._seconds_a_chunk)
                calls.append(LEDGER.finish(done(parse_job(task, text))))
        self._store._run_all(calls)

    def _stranded(self) -> list[str]:
        found = []
        for queue in self._redis.smembers(LEDGER.open_key()):
            found += [
                LEDGER.job_id_of_key(k) for k in self._redis.zrange(LEDGER.open_key(queue), 0, -1)
            ]
        return found


def main() -> None:
    assert "caption_chunk" in TASK_NAMES
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    worker = ChunkWorker(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    while True:
        worker.step()


if __name__ == "__main__":
    main()
