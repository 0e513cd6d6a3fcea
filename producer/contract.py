"""The contract: jobs, results and their JSON, version 1.

Models are frozen and strict and refuse unknown fields. Parse what came over the wire with
`parse_job` or `JobResult.model_validate_json`: strict models take JSON text, not decoded dicts.
"""

import json
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from producer.errors import PUBLIC_TEXT, ErrorCode, JobFailed
from producer.framing import MAX_REGIONS, Box, Mode, Resolution
from producer.options import CaptionOptions, Model
from producer.queues import INTERACTIVE, Lane

__all__ = [
    "JOB_ID_PATTERN",
    "JOB_MODELS",
    "MAX_MESSAGE_BYTES",
    "SCHEMA_VERSION",
    "Caption",
    "CaptionJob",
    "CaptionOptions",
    "ErrorCode",
    "ImageFacts",
    "ImageRef",
    "Job",
    "JobError",
    "JobFailed",
    "JobResult",
    "JobState",
    "Lane",
    "Match",
    "MatchJob",
    "ModelFacts",
    "RegionCaptions",
    "Timings",
    "parse_job",
    "public_uri",
    "schema",
    "utcnow",
]

SCHEMA_VERSION = 1
SCHEMES = ("https", "http", "s3", "file")
MAX_URI_CHARS = 2_048
MAX_MESSAGE_BYTES = 65_536


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
    image: ImageRef
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


class CaptionJob(_Job):
    """Say in words what an image shows."""

    task: Literal["caption"] = "caption"
    options: CaptionOptions = CaptionOptions()
    regions: tuple[Box, ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_REGIONS,
        description="Caption these parts of the image, each at full detail, in place of the whole",
    )


class MatchJob(_Job):
    """Say how well each of some texts fits an image."""

    task: Literal["match"] = "match"
    texts: tuple[Text, ...] = Field(min_length=1, max_length=256)


Job = CaptionJob | MatchJob
JOB_MODELS: dict[str, type[CaptionJob] | type[MatchJob]] = {
    "caption": CaptionJob,
    "match": MatchJob,
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


class JobState(StrEnum):
    """Where a job stands. The last four are terminal: the first of them to come is kept."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Caption(Model):
    """One caption with its confidence. Log-probabilities are natural logarithms."""

    text: str
    tokens: tuple[str, ...] = Field(description="The generated tokens, the closing one included")
    token_logprobs: tuple[float, ...] = Field(
        description="One per token: the model's own, before penalties, bans and samplers"
    )
    processed_token_logprobs: tuple[float, ...] = Field(
        description="One per token: after all of them, what it was chosen by"
    )
    logprob: float = Field(description="Sum of token_logprobs")
    mean_logprob: float = Field(description="Sum divided by the number of tokens")
    score: float = Field(
        description="What captions are ranked by: log-probability / length ** length_penalty"
    )
    finish_reason: Literal["stop", "length"]
    seed: int | None = Field(None, description="Draws the same samples again")
    count: int = Field(1, ge=1, description="How many of the samples drawn say this")


class RegionCaptions(Model):
    """One region of the image, as the job gave it, and its captions, best first."""

    box: Box
    captions: tuple[Caption, ...]


class Match(Model):
    """How well one text fits the image."""

    text: str
    itm_probability: float = Field(ge=0, le=1, description="Image-text matching head, softmax")
    itm_logit: float
    itc_cosine: float = Field(
        ge=-1.001, le=1.001, description="Cosine of the two contrastive projections"
    )


class ImageFacts(Model):
    """The image as it was fetched, before any resizing."""

    format: str
    width: int
    height: int
    bytes: int
    sha256: str


class ModelFacts(Model):
    """Which weights answered."""

    id: str
    revision: str
    dtype: str


class Timings(Model):
    """Milliseconds a stage of the last attempt took."""

    queue_ms: float | None = Field(None, description="From submission to the worker's start")
    fetch_ms: float | None = None
    decode_ms: float | None = None
    infer_ms: float | None = Field(None, description="In the batcher and on the device")
    batch_size: int | None = Field(None, description="Items on the device together with this one")


class JobError(Model):
    """Why a job has no result."""

    code: ErrorCode
    message: str

    @classmethod
    def of(cls, failure: JobFailed) -> Self:
        """What a client is told of a failure."""
        return cls(code=failure.code, message=failure.message)


class JobResult(Model):
    """What became of a job: its terminal state and what belongs to it."""

    schema_version: int = SCHEMA_VERSION
    job_id: str
    task: str
    state: JobState
    attempts: int = Field(ge=0, description="Tries begun; 0 when the job was never run")
    image_ref: str | None = None
    captions: tuple[Caption, ...] | None = None
    regions: tuple[RegionCaptions, ...] | None = Field(
        None, description="In place of captions: one for each region of the job, in its order"
    )
    matches: tuple[Match, ...] | None = None
    error: JobError | None = None
    image: ImageFacts | None = None
    model: ModelFacts | None = None
    timings: Timings | None = None
    finished_at: datetime

    def raise_for_state(self) -> Self:
        """Return self when the job succeeded.

        Raises:
            JobFailed: with the job's code, for any other state.
        """
        if self.state is not JobState.SUCCEEDED:
            error = self.error or JobError.of(JobFailed(ErrorCode.INTERNAL_ERROR))
            raise JobFailed(error.code, error.message)
        return self


def schema() -> dict[str, Any]:
    """JSON Schemas of everything on the wire, by name."""
    return {
        model.__name__: model.model_json_schema() for model in (CaptionJob, MatchJob, JobResult)
    }
