"""A worker without a model: takes messages from the queues and ends their jobs."""

import base64
import json
import threading
from collections.abc import Callable
from typing import Any, Self

import redis

from producer.contract import (
    CaptionJob,
    Chunk,
    EmbedJob,
    ExplainJob,
    ImageJob,
    ItemResult,
    Job,
    JobResult,
    JobState,
    Lane,
    MatchJob,
    RankChunk,
    Ranked,
    RankJob,
    RegionCaptions,
    WordsExplained,
    parse_job,
    utcnow,
)
from producer.queues import TASK_NAMES, queue_for
from producer.redis_store import RedisStore
from producer.wire import RECORDED
from tests.stand_in_model import MODEL, caption, embedding, matches

KINDS = {name: kind for kind, name in TASK_NAMES.items()}


def messages(client: "redis.Redis", queue: str) -> list[dict[str, Any]]:
    """The messages in a queue, oldest first, as Celery wrote them: headers, kwargs, properties."""
    return [_opened(raw) for raw in reversed(client.lrange(queue, 0, -1))]


def _opened(raw: bytes) -> dict[str, Any]:
    message = json.loads(raw)
    _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    return {
        "headers": message["headers"],
        "kwargs": kwargs,
        "content-type": message["content-type"],
    }


def succeeded(job: Job) -> JobResult:
    """A result as good as any."""
    if isinstance(job, Chunk):
        return _each(job)
    return JobResult(
        job_id=str(job.job_id),
        task=job.task,
        state=JobState.SUCCEEDED,
        attempts=1,
        image_ref=job.image,
        model=MODEL,
        **_said(job),
        finished_at=utcnow(),
    )


def _said(job: ImageJob) -> dict[str, Any]:
    said = caption(f"a picture of {job.image}")
    match job:
        case CaptionJob(regions=None):
            return {"captions": (said,)}
        case CaptionJob():
            boxes = job.regions or ()
            return {"regions": tuple(RegionCaptions(box=box, captions=(said,)) for box in boxes)}
        case MatchJob():
            return {"matches": matches(job.image, job.texts)}
        case RankJob():
            best = matches(job.image, job.texts)[: job.k]
            return {
                "ranking": tuple(Ranked(**one.model_dump(exclude={"explanation"})) for one in best)
            }
        case ExplainJob():
            said_of = [
                WordsExplained(text=text, method="attention", grid=(1, 1), words=())
                for text in job.texts
            ]
            return {"explanations": tuple(said_of)}
        case EmbedJob():
            words = job.texts or (str(job.image),)
            return {"embeddings": tuple(embedding(one, job.encoding) for one in words)}


def _each(chunk: Chunk) -> JobResult:
    results = [succeeded(chunk.one(index)) for index in range(len(chunk.images))]
    return JobResult(
        job_id=str(chunk.job_id),
        task=chunk.task,
        state=JobState.SUCCEEDED,
        attempts=1,
        image_ref=chunk.shown,
        items=tuple(
            ItemResult(
                index=index,
                image_ref=one.image_ref,
                state=JobState.SUCCEEDED,
                attempts=1,
                captions=one.captions,
                matches=one.matches,
                embeddings=one.embeddings,
            )
            for index, one in enumerate(results)
        ),
        counts={"succeeded": len(results)},
        ranking=_ranking(chunk, results) if isinstance(chunk, RankChunk) else None,
        model=MODEL,
        finished_at=utcnow(),
    )


def _ranking(chunk: RankChunk, results: list[JobResult]) -> tuple[Ranked, ...]:
    found = [(index, match) for index, one in enumerate(results) for match in one.matches or ()]
    best = sorted(found, key=lambda pair: -pair[1].score)[: chunk.k]
    return tuple(
        Ranked(
            **match.model_dump(exclude={"explanation"})
            | {"index": index, "image_ref": chunk.images[index]}
        )
        for index, match in best
    )


class StandInWorker:
    """While its block lasts, every job that comes ends as `end` says."""

    def __init__(self, url: str, end: Callable[[Job], JobResult] = succeeded) -> None:
        self._end = end
        self._redis = redis.Redis.from_url(url)
        self._store = RedisStore(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        lanes: tuple[Lane, ...] = ("interactive", "bulk")
        queues = [queue_for(task, lane=lane) for lane in lanes for task in TASK_NAMES]
        while not self._over.is_set():
            taken = self._redis.brpop(queues, timeout=0.1)
            if taken is not None:
                message = _opened(taken[1])
                kind = KINDS[message["headers"]["task"]]
                said = message["kwargs"]["job"]
                recorded = self._store.get(said[RECORDED]) if RECORDED in said else None
                job = parse_job(kind, recorded.job if recorded else said)
                self._store.finish(self._end(job))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self._redis.close()
        self._store.close()
