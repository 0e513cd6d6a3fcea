"""What a model has said of an image, kept for when the same is asked again. Off by default.

Two jobs are the same when the file (by its SHA-256), the weights (by model id and revision), and
everything that was asked for are: then decoding and the device are spared. What is drawn at random
without a seed is never kept.

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

from producer.contract import (
    Caption,
    CaptionJob,
    ImageFacts,
    ImageJob,
    Match,
    ModelFacts,
    RegionCaptions,
)

__all__ = ["Answer", "ResultCache", "read_counts"]

log = logging.getLogger(__name__)

COUNTS_KEY = "captionq:cache"


class Answer(BaseModel):
    """An answer as it is kept; one of the three is there."""

    image: ImageFacts
    captions: tuple[Caption, ...] | None = None
    regions: tuple[RegionCaptions, ...] | None = None
    matches: tuple[Match, ...] | None = None
    device_ms: float
    """What it took of the device, milliseconds."""

    @property
    def outputs(self) -> tuple[object, ...]:
        """The captions, regions or matches."""
        return self.captions or self.regions or self.matches or ()

    @classmethod
    def of(
        cls, job: ImageJob, outputs: tuple[Any, ...], image: ImageFacts, device_ms: float
    ) -> "Answer":
        """The answer to a job."""
        if not isinstance(job, CaptionJob):
            return cls(image=image, device_ms=device_ms, matches=outputs)
        if job.regions:
            return cls(image=image, device_ms=device_ms, regions=outputs)
        return cls(image=image, device_ms=device_ms, captions=outputs)


@dataclass(frozen=True)
class ResultCache:
    """A cache in Redis; when that is away, nothing is found and nothing kept.

    Args:
        ttl_s: how long an answer is kept, seconds.
        facts: which weights answer a task.
        seen_by: what else of this worker decides which pixels a file becomes.
    """

    client: redis.Redis
    ttl_s: float
    facts: Callable[[str], ModelFacts]
    seen_by: str = ""

    def key(self, job: ImageJob, data: bytes) -> str | None:
        """What the answer to a job about this file is kept under; None where it is not."""
        if isinstance(job, CaptionJob) and job.options.do_sample and job.options.seed is None:
            return None
        model = self.facts(job.task)
        asked = job.model_dump(
            mode="json", include={"task", "mode", "resolution", "options", "regions", "texts"}
        )
        whole = [
            hashlib.sha256(data).hexdigest(), model.id, model.revision, model.dtype, self.seen_by,
            asked,
        ]  # fmt: skip
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        return f"{COUNTS_KEY}:{hashlib.sha256(text.encode()).hexdigest()}"

    def get(self, key: str) -> Answer | None:
        """The answer kept under a key, counted as a hit; None when there is none."""
        try:
            kept: Any = self.client.get(key)
            answer = None if kept is None else Answer.model_validate_json(kept)
            if answer is not None:
                with self.client.pipeline(transaction=False) as pipeline:
                    pipeline.hincrbyfloat(COUNTS_KEY, "hits", 1)
                    pipeline.hincrbyfloat(COUNTS_KEY, "saved_device_ms", answer.device_ms)
                    pipeline.execute()
            return answer
        except (redis.RedisError, ValidationError) as exc:
            log.warning("the cache of results cannot be read: %s", exc)
            return None

    def put(self, key: str, answer: Answer) -> None:
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
    with redis.Redis.from_url(url, decode_responses=True, socket_timeout=5) as client:
        found: Any = client.hgetall(COUNTS_KEY)
    return {name: float(found.get(name, 0)) for name in ("hits", "misses", "saved_device_ms")}
