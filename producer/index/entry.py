"""A row of the index: one image, what it was captioned as, and where it lies among the others."""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import TypeAdapter, ValidationError

from producer.contract import Embedding, ImageRef, ItemResult, JobResult, JobState

_URI = TypeAdapter(ImageRef)


class LeftOut(StrEnum):
    """Why what became of an image is no row of an index."""

    FAILED = "failed"
    WITHOUT_EMBEDDING = "without_embedding"
    IN_SHARDS = "in_shards"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Entry:
    """One image of an index.

    `vector` is its embedding by `model` at `revision`, float32; `caption` the best one that was not
    refused, None without; `captioned_at` when its result was written, as far as that is known.
    """

    image_ref: str
    vector: "array[float]"
    model: str
    revision: str
    caption: str | None = None
    job_id: str | None = None
    captioned_at: datetime | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None

    @classmethod
    def of(
        cls, found: ItemResult | JobResult, job_id: str | None, at: datetime | None
    ) -> Self | LeftOut:
        """The entry of what became of an image, or why there is none."""
        if found.state is not JobState.SUCCEEDED:
            return LeftOut.FAILED
        if not found.embeddings or not found.image_ref or getattr(found, "regions", None):
            return LeftOut.WITHOUT_EMBEDDING
        embedding: Embedding = found.embeddings[0]
        vector = array("f", embedding.values())
        try:
            image_ref = _URI.validate_python(found.image_ref)
        except ValidationError:
            return LeftOut.UNREADABLE
        if not any(vector):  # it has no direction
            return LeftOut.WITHOUT_EMBEDDING
        best = found.captions[0] if found.captions and not found.captions[0].rejected else None
        facts = found.image
        return cls(
            image_ref=image_ref,
            vector=vector,
            model=embedding.model,
            revision=embedding.revision,
            caption=best.text if best else None,
            job_id=job_id,
            captioned_at=at,
            sha256=facts.sha256 if facts else None,
            width=facts.width if facts else None,
            height=facts.height if facts else None,
        )

    @property
    def id(self) -> str:
        """What tells this image from others, always the same: 64 hexadecimal digits.

        An image is known by its reference. Results do not say the query of an http(s) URL, which
        may be what tells two images apart, so that those are known by their content as well.

        >>> Entry("s3://b/a.png", array("f"), "m", "r", sha256="1").id[:16]
        '9ea0057c7d81d7c8'
        """
        known = self.image_ref
        if known.lower().startswith("http") and self.sha256 is not None:
            known = f"{known} {self.sha256}"
        return hashlib.sha256(known.encode()).hexdigest()


def entries_of(result: JobResult) -> Iterator[Entry | LeftOut]:
    """What each image of a job is in an index, or why it is not there."""
    if result.items is not None:
        for item in result.items:
            yield Entry.of(item, result.job_id, result.finished_at)
    elif result.shard is not None:
        yield LeftOut.IN_SHARDS
    else:
        yield Entry.of(result, result.job_id, result.finished_at)
