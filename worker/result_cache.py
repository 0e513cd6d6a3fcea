"""What a model has said of an image, kept for when the same is asked again. Off by default.

Two jobs are the same when the file (by its SHA-256), the weights (by model id and revision), the
packs beside these, and everything that was asked for are: then decoding and the device are spared.
What is drawn at random without a seed is never kept.

    captionq:cache:KEY      the answer, as JSON, for a while
    captionq:cache          hash: hits, misses, and the device's milliseconds that hits have saved
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from pydantic import BaseModel, ValidationError

from producer.contract import CaptionJob, ImageFacts, ImageJob
from producer.redis_at import redis_at
from worker.answer import Answer
from worker.packs.answering import NO_PACKS, Answering

__all__ = ["Kept", "ResultCache", "read_counts"]

log = logging.getLogger(__name__)

COUNTS_KEY = "captionq:cache"

NOT_ASKED: set[str] = {
    "schema_version", "job_id", "model", "lane", "submitted_at", "expires_at", "signature", "image",
    "language", "adapter", "callback", "batch_id", "owner",
}  # fmt: skip
"""The fields of a job that do not decide how it is answered. What language and adapter came to is
the packs that answer."""


class Kept(BaseModel):
    """An answer as it is kept."""

    image: ImageFacts
    answer: Answer
    device_ms: float
    """What it took of the device, milliseconds."""


@dataclass(frozen=True)
class ResultCache:
    """A cache in Redis; when that is away, nothing is found and nothing kept.

    Args:
        ttl_s: how long an answer is kept, seconds.
        models_of: which weights, and what else of the models, decide how a job is answered: JSON.
        seen_by: what else of this worker decides which pixels a file becomes.
    """

    client: redis.Redis
    ttl_s: float
    models_of: Callable[[ImageJob, Answering], Any]
    seen_by: str = ""

    def key(self, job: ImageJob, data: bytes, packs: Answering = NO_PACKS) -> str | None:
        """What the answer to a job about this file is kept under; None where it is not."""
        if isinstance(job, CaptionJob) and job.options.do_sample and job.options.seed is None:
            return None
        explain = getattr(job, "explain", None)
        if explain is not None and explain.sink is not None:  # maps are not kept
            return None
        asked = job.model_dump(mode="json", exclude=NOT_ASKED)
        file = hashlib.sha256(data).hexdigest()
        whole = [file, self.models_of(job, packs), self.seen_by, asked]
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        return f"{COUNTS_KEY}:{hashlib.sha256(text.encode()).hexdigest()}"

    def get(self, key: str) -> Kept | None:
        """The answer kept under a key, counted as a hit; None when there is none."""
        try:
            kept: Any = self.client.get(key)
            answer = None if kept is None else Kept.model_validate_json(kept)
            if answer is not None:
                with self.client.pipeline(transaction=False) as pipeline:
                    pipeline.hincrbyfloat(COUNTS_KEY, "hits", 1)
                    pipeline.hincrbyfloat(COUNTS_KEY, "saved_device_ms", answer.device_ms)
                    pipeline.execute()
            return answer
        except (redis.RedisError, ValidationError) as exc:
            log.warning("the cache of results cannot be read: %s", exc)
            return None

    def put(self, key: str, answer: Kept) -> None:
        """Keep an answer, and count a miss."""
        try:
            with self.client.pipeline(transaction=False) as pipeline:
                life_ms = max(1, round(self.ttl_s * 1_000))
                pipeline.set(key, answer.model_dump_json(), px=life_ms)
                pipeline.hincrbyfloat(COUNTS_KEY, "misses", 1)
                pipeline.execute()
        except redis.RedisError as exc:
            log.warning("a result is not kept in the cache: %s", exc)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def read_counts(url: str) -> dict[str, float]:
    """hits, misses and saved_device_ms of all workers, from the Redis at `url`.

    Raises:
        redis.RedisError: it cannot be read.
    """
    with redis_at(url, decode_responses=True, socket_timeout=5) as client:
        found: Any = client.hgetall(COUNTS_KEY)
    return {name: float(found.get(name, 0)) for name in ("hits", "misses", "saved_device_ms")}
