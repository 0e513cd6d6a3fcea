"""The contract: jobs, results and their JSON, version 1.

Models are frozen and strict and refuse unknown fields. Parse what came over the wire with
`parse_job` or `JobResult.model_validate_json`: strict models take JSON text, not decoded dicts.
"""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from producer.errors import PUBLIC_TEXT, ErrorCode, JobFailed
from producer.framing import MAX_REGIONS, Box, Mode, Resolution
from producer.options import CaptionOptions, Model
from producer.queues import BULK, INTERACTIVE, Lane
from producer.result import (
    SCHEMA_VERSION,
    Caption,
    ImageFacts,
    ItemResult,
    JobError,
    JobResult,
    JobState,
    Match,
    ModelFacts,
    RegionCaptions,
    Timings,
)

__all__ = [
    "JOB_ID_PATTERN",
    "JOB_MODELS",
    "MAX_CHUNK",
    "MAX_CHUNK_BYTES",
    "MAX_MESSAGE_BYTES",
    "SCHEMA_VERSION",
    "Caption",
    "CaptionChunk",
    "CaptionJob",
    "CaptionOptions",
    "Chunk",
    "ErrorCode",
    "ImageFacts",
    "ImageJob",
    "ImageRef",
    "ItemResult",
    "Job",
    "JobError",
    "JobFailed",
    "JobResult",
    "JobState",
    "Lane",
    "Match",
    "MatchChunk",
    "MatchJob",
    "ModelFacts",
    "RegionCaptions",
    "Timings",
    "images_shown",
    "parse_job",
    "public_uri",
    "schema",
    "utcnow",
]

SCHEMES = ("https", "http", "s3", "file")
MAX_URI_CHARS = 2_048
MAX_MESSAGE_BYTES = 65_536
MAX_CHUNK = 64
"""Images of a chunk."""
MAX_CHUNK_BYTES = 262_144
"""JSON of a chunk: it lies in its record, and is in no message."""


def utcnow() -> datetime:
    """Now, timezone-aware, in UTC."""
    return datetime.now(UTC)


def _image_ref(uri: str) -> str:
    if any(char.isspace() or not char.isprintable() or char == "\\" for char in uri):
        raise ValueError("an image URI holds no spaces, control characters or backslashes")
    try:
        parts = urlsplit(uri)
    except ValueError as exc:
        raise ValueError(f"not a URI: {exc}") from None
    if parts.scheme.lower() not in SCHEMES:
        raise ValueError(f"an image URI begins with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError("a file URI is file:///absolute/path")
    elif not parts.netloc:
        raise ValueError("the URI names no host or bucket")
    if parts.scheme.lower() == "s3" and len(parts.path) < 2:
        raise ValueError("an S3 URI is s3://bucket/key or s3://bucket/key?versionId=...")
    return uri


def public_uri(uri: str) -> str:
    """The URI as it may be shown in logs, events and results: http(s) to the end of its path.

    A presigned URL's query is a credential, as are a user and a password before the host. Whatever
    is neither s3:// nor file:// counts as http, for what is shown may not have been validated.

    >>> public_uri("https://example.com/cat.jpg?X-Amz-Signature=abc")
    'https://example.com/cat.jpg'
    >>> public_uri("s3://photos/cat.jpg?versionId=1")
    's3://photos/cat.jpg?versionId=1'
    """
    kept_whole = uri.lower().startswith(("s3://", "file://"))
    if kept_whole:
        return uri
    return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", uri, maxsplit=1)[0], count=1)


def images_shown(job: Any) -> str | None:
    """What may be shown of the images that a job's JSON object names; None when it names none.

    Anything may be given, for what is shown may not have been validated.

    >>> images_shown({"images": ["https://a.example/1.png?key=x", "https://a.example/2.png"]})
    '2 images from https://a.example/1.png'
    """
    named = job if isinstance(job, dict) else {}
    images = named.get("images", [named.get("image")])
    first = images[0] if isinstance(images, list | tuple) and images else None
    if not isinstance(first, str) or re.search("[\ud800-\udfff]", first):  # not to be stored
        return None
    return public_uri(first) if "images" not in named else _images_from(len(images), first)


def _images_from(count: int, first: str) -> str:
    return f"{count} image{'s' * (count != 1)} from {public_uri(first)}"


def _sink(uri: str) -> str:
    if not re.fullmatch(r"(s3://[^/?#]+/|file:///)([^?#\\]*/)?", uri) or re.search(r"\s", uri):
        raise ValueError("a sink is a folder: s3://bucket/prefix/ or file:///folder/")
    return uri


ImageRef = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_URI_CHARS,
        description="Where the image lies: https://, http://, s3://bucket/key?versionId=, file://",
        examples=["https://example.com/cat.jpg", "s3://photos/2026/cat.jpg"],
    ),
    AfterValidator(_image_ref),
]
JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@=+/-]{0,199}$"
JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN)]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]


class _Job(Model):
    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    job_id: JobId | None = Field(
        None, description="Chosen by the client when absent; the same id twice is one job"
    )
    model: str | None = Field(
        None, max_length=200, description="Only workers that serve this model id take the job"
    )
    lane: Lane = Field(
        INTERACTIVE, description="'interactive' overtakes 'bulk', in the queue and in workers"
    )
    mode: Mode = "stretch"
    resolution: Resolution | None = None
    submitted_at: datetime | None = None
    expires_at: datetime | None = Field(
        None, description="Not begun after this moment: the job then fails as job_expired"
    )

    signature: str | None = Field(
        None,
        max_length=200,
        description="v1.KEYID.ISSUED_AT.MAC by docs/security.md, needed where workers hold keys. "
        "Clients that hold one make it",
    )

    @model_validator(mode="after")
    def _aware(self) -> Self:
        for name in ("submitted_at", "expires_at"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{name} needs a time zone, as in 2026-01-31T12:00:00Z")
        return self


class _ImageJob(_Job):
    image: ImageRef

    @property
    def shown(self) -> str:
        """What logs, events and results may show of its image."""
        return public_uri(self.image)


class _Chunk(_Job):
    images: tuple[ImageRef, ...] = Field(
        min_length=1, max_length=MAX_CHUNK, description="Each succeeds or fails alone"
    )
    lane: Lane = Field(BULK, description="'interactive' overtakes 'bulk'")
    sink: Annotated[str, Field(max_length=1_024), AfterValidator(_sink)] | None = Field(
        None,
        description="A folder, s3://bucket/prefix/ or file:///folder/, that the worker writes the "
        "items to as one shard, in place of the result",
    )
    sink_format: Literal["jsonl", "parquet"] = "jsonl"

    @property
    def shown(self) -> str:
        """What logs, events and results may show of its images."""
        return _images_from(len(self.images), self.images[0])


class CaptionJob(_ImageJob):
    """Say in words what an image shows."""

    task: Literal["caption"] = "caption"
    options: CaptionOptions = CaptionOptions()
    regions: tuple[Box, ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_REGIONS,
        description="Caption these parts of the image, each at full detail, in place of the whole",
    )


class MatchJob(_ImageJob):
    """Say how well each of some texts fits an image."""

    task: Literal["match"] = "match"
    texts: tuple[Text, ...] = Field(min_length=1, max_length=256)


class CaptionChunk(_Chunk):
    """Say in words what each of up to 64 images shows: one message, and one result."""

    task: Literal["caption_chunk"] = "caption_chunk"
    options: CaptionOptions = CaptionOptions()

    def one(self, index: int) -> CaptionJob:
        """The job of one image, from what is valid already."""
        own = _of_one(self, index)
        return CaptionJob.model_construct(**own, options=self.options, regions=None)


class MatchChunk(_Chunk):
    """Say how well each of some texts fits each of up to 64 images."""

    task: Literal["match_chunk"] = "match_chunk"
    texts: tuple[Text, ...] = Field(min_length=1, max_length=256)

    def one(self, index: int) -> MatchJob:
        """The job of one image, from what is valid already."""
        return MatchJob.model_construct(**_of_one(self, index), texts=self.texts)


def _of_one(chunk: _Chunk, index: int) -> dict[str, Any]:
    names = ("job_id", "lane", "model", "mode", "resolution", "submitted_at", "expires_at")
    return {name: getattr(chunk, name) for name in names} | {"image": chunk.images[index]}


ImageJob = CaptionJob | MatchJob
Chunk = CaptionChunk | MatchChunk
Job = ImageJob | Chunk
JOB_MODELS: dict[str, type[CaptionJob] | type[MatchJob] | type[CaptionChunk] | type[MatchChunk]] = {
    "caption": CaptionJob,
    "match": MatchJob,
    "caption_chunk": CaptionChunk,
    "match_chunk": MatchChunk,
}


def parse_job(task: str, job: Any) -> Job:
    """Validate a decoded JSON object (or JSON text) as a job of `task`.

    Raises:
        JobFailed: `schema_unsupported` for a newer version than this one, else `job_invalid`,
            naming the fields at fault.
    """
    try:
        decoded = json.loads(job) if isinstance(job, str | bytes) else job
        text = json.dumps(decoded)
    except (TypeError, ValueError, RecursionError) as exc:
        raise JobFailed(ErrorCode.JOB_INVALID, "The job is not a JSON object.") from exc
    version = decoded.get("schema_version", 1) if isinstance(decoded, dict) else 1
    if type(version) is int and version > SCHEMA_VERSION:
        raise JobFailed(ErrorCode.SCHEMA_UNSUPPORTED)
    try:
        return JOB_MODELS[task].model_validate_json(text)
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'job'}: {e['msg']}"
            for e in exc.errors(include_url=False, include_input=False)[:5]
            if e["type"] != "default_factory_not_called"  # it follows from another fault
        )
        raise JobFailed(
            ErrorCode.JOB_INVALID, f"{PUBLIC_TEXT[ErrorCode.JOB_INVALID]} {faults}"
        ) from exc


def schema() -> dict[str, Any]:
    """JSON Schemas of everything on the wire, by name."""
    models = (*JOB_MODELS.values(), JobResult)
    return {model.__name__: model.model_json_schema() for model in models}
