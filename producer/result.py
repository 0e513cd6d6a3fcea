"""What became of jobs: the results on the wire, version 1."""

from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field

from producer.embedding import Embedding
from producer.errors import ErrorCode, JobFailed
from producer.explaining import Preview, WordsExplained
from producer.filtering import Reason
from producer.framing import Box
from producer.language import PackFacts, space_of
from producer.options import Model

SCHEMA_VERSION = 1


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
    itm_probability: float | None = Field(
        None, ge=0, le=1, description="How well it matches the image, where a filter was asked for"
    )
    calibrated_probability: float | None = Field(None, ge=0, le=1)
    rejected: bool | None = Field(None, description="Whether the filter refuses it")
    reject_reasons: tuple[Reason, ...] = ()
    explanation: WordsExplained | None = Field(
        None, description="Where the model looked for each word, where that was asked for"
    )


class RegionCaptions(Model):
    """One region of the image, as the job gave it, and its captions, best first."""

    box: Box
    captions: tuple[Caption, ...]


Decision = Literal["match", "no_match"]


class Match(Model):
    """How well one text fits the image. Those of a job come best first, by score."""

    text: str
    index: int = Field(0, ge=0, description="The text's place in the job, from 0")
    itm_probability: float = Field(ge=0, le=1, description="Image-text matching head, softmax")
    itm_logit: float
    itc_cosine: float = Field(
        ge=-1.001, le=1.001, description="Cosine of the two contrastive projections"
    )
    score: float = Field(
        default_factory=lambda valid: valid["itm_logit"] + valid["itc_cosine"],
        description="itm_logit + itc_cosine: what the paper ranks by",
    )
    calibrated_probability: float | None = Field(
        None, ge=0, le=1, description="That they belong together, where the model is calibrated"
    )
    decision: Decision | None = Field(
        None, description="By the threshold that the calibration was made with"
    )
    explanation: WordsExplained | None = Field(
        None, description="Where the model looked for each word, where that was asked for"
    )


class Ranked(Model):
    """One of the best of many candidates: a text or an image, by its place in the job."""

    index: int = Field(ge=0, description="The candidate's place in the job, from 0")
    text: str | None = None
    image_ref: str | None = None
    itc_cosine: float = Field(ge=-1.001, le=1.001)
    itm_logit: float
    itm_probability: float = Field(ge=0, le=1)
    score: float = Field(description="itm_logit + itc_cosine: what the paper ranks by")
    calibrated_probability: float | None = Field(None, ge=0, le=1)
    decision: Decision | None = None


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


class ItemResult(Model):
    """What became of one image of a chunk."""

    index: int = Field(ge=0, description="Its place among the chunk's images, from 0")
    image_ref: str | None = None
    state: Literal[JobState.SUCCEEDED, JobState.FAILED]
    attempts: int = Field(ge=0, description="Tries begun at this image")
    captions: tuple[Caption, ...] | None = None
    matches: tuple[Match, ...] | None = None
    embeddings: tuple[Embedding, ...] | None = Field(None, description="One: the image's")
    abstained: bool | None = Field(None, description="Whether a filter left no caption")
    pack: PackFacts | None = Field(None, description="Which answered, if the model did not alone")
    match_pack: PackFacts | None = Field(None, description="Which weighed the captions")
    error: JobError | None = None
    image: ImageFacts | None = None

    @property
    def outcome(self) -> str:
        """What `JobResult.counts` counts it as: succeeded, or the code of its error."""
        return self.error.code.value if self.error else self.state.value


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
    embeddings: tuple[Embedding, ...] | None = Field(
        None, description="The image's one, or of each of the job's texts, in their order"
    )
    ranking: tuple[Ranked, ...] | None = Field(
        None, description="The k best candidates by ITC, best first by score"
    )
    abstained: bool | None = Field(None, description="Whether a filter left no caption")
    explanations: tuple[WordsExplained, ...] | None = Field(
        None, description="Of an explain job: of each of its texts, in their order"
    )
    preview: Preview | None = Field(
        None, description="The image made small, where it was to be explained inline"
    )
    items: tuple[ItemResult, ...] | None = Field(
        None, description="Of a chunk: one for each of its images, in their order"
    )
    shard: str | None = Field(
        None, description="Of a chunk with a sink: the URI where its items are, in place of items"
    )
    counts: dict[str, int] | None = Field(
        None, description="Of a chunk: how many images succeeded, or failed with which code"
    )
    error: JobError | None = None
    image: ImageFacts | None = None
    model: ModelFacts | None = None
    match_model: ModelFacts | None = Field(
        None, description="Which weights weighed or embedded what another model captioned"
    )
    pack: PackFacts | None = Field(
        None,
        description="Which language or domain pack answered, if the model did not alone; of a "
        "chunk, where all its items say the same",
    )
    match_pack: PackFacts | None = Field(None, description="Which pack weighed the captions")
    timings: Timings | None = None
    finished_at: datetime

    @property
    def space(self) -> tuple[str, str] | None:
        """Of a match, rank or embed job: the model and revision that its embeddings state, or would
        state."""
        by = self.model
        return None if by is None else (by.id, space_of(by.revision, self.pack))

    def raise_for_state(self) -> Self:
        """Return self when the job succeeded.

        Raises:
            JobFailed: with the job's code, for any other state.
        """
        if self.state is not JobState.SUCCEEDED:
            error = self.error or JobError.of(JobFailed(ErrorCode.INTERNAL_ERROR))
            raise JobFailed(error.code, error.message)
        return self
