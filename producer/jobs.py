"""Jobs of one image, or of texts, on the wire."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from producer.callback import ID_PATTERN, Callback
from producer.embedding import Encoding
from producer.explaining import ExplainOptions
from producer.filtering import CaptionFilter
from producer.framing import MAX_REGIONS, Box, Mode, Resolution
from producer.language import Adapter, Language
from producer.options import CaptionOptions, Model
from producer.queues import INTERACTIVE, Lane
from producer.references import ImageRef, public_uri
from producer.result import SCHEMA_VERSION

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@=+/-]{0,199}$"
JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN)]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]


Texts = Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]
PositionZero = Annotated[
    Literal["enc", "cls"] | None,
    Field(
        description="What ITM reads its answer from: the paper's [ENC], the default where the "
        "tokenizer has it, or [CLS], as in transformers"
    ),
]
ShortlistSize = Annotated[
    int,
    Field(ge=1, le=256, description="How many of the best by ITC are ranked by ITM, and returned"),
]
CaptionEmbedding = Annotated[
    Encoding | None,
    Field(
        description="Embed the image as well, written so. The worker has to serve a matching model"
    ),
]


MAX_EXPLAINED = 16
"""Texts whose words are explained at a time."""


class BaseJob(Model):
    """What all jobs have."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    job_id: JobId | None = Field(
        None, description="Chosen by the client when absent; the same id twice is one job"
    )
    model: str | None = Field(
        None, max_length=200, description="Only workers that serve this model id take the job"
    )
    language: Language = None
    adapter: Adapter = None
    lane: Lane = Field(
        INTERACTIVE, description="'interactive' overtakes 'bulk', in the queue and in workers"
    )
    mode: Mode = "stretch"
    resolution: Resolution | None = None
    submitted_at: datetime | None = None
    expires_at: datetime | None = Field(
        None, description="Not begun after this moment: the job then fails as job_expired"
    )
    callback: Callback | None = Field(
        None, description="Who is told when the job has ended, however it did"
    )
    batch_id: JobId | None = Field(
        None, description="The batch that it was submitted in, whose jobs are counted together"
    )
    owner: str | None = Field(
        None,
        pattern=ID_PATTERN,
        description="Whose job it is: the id of the API key that it was submitted with",
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


class _ImageJob(BaseJob):
    image: ImageRef

    @property
    def shown(self) -> str:
        """What logs, events and results may show of its image."""
        return public_uri(self.image)


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
    filter: CaptionFilter | None = Field(
        None, description="Rank the candidates by how well they match, and refuse poor ones"
    )
    embed: CaptionEmbedding = None
    explain: ExplainOptions | None = Field(
        None, description="Say where the model looked for each word of each caption"
    )

    @model_validator(mode="after")
    def _whole_if_explained(self) -> Self:
        if self.explain is not None and self.regions is not None:
            raise ValueError("explain is of whole images, not of regions")
        return self


class MatchJob(_ImageJob):
    """Say how well each of some texts fits an image: the best first."""

    task: Literal["match"] = "match"
    texts: Texts
    position_zero: PositionZero = None
    explain: ExplainOptions | None = Field(
        None, description="Say where the model looked for each word; of at most 16 texts"
    )

    @model_validator(mode="after")
    def _few_if_explained(self) -> Self:
        if self.explain is not None and len(self.texts) > MAX_EXPLAINED:
            raise ValueError(f"explain is of at most {MAX_EXPLAINED} texts")
        return self


class ExplainJob(_ImageJob):
    """Say where the captioning model looks for each word of texts that are given."""

    task: Literal["explain"] = "explain"
    texts: tuple[Text, ...] = Field(min_length=1, max_length=MAX_EXPLAINED)
    explain: ExplainOptions = ExplainOptions()


class EmbedJob(BaseJob):
    """Place an image, or each of some texts, in the space where cosines compare them (ITC)."""

    task: Literal["embed"] = "embed"
    image: ImageRef | None = None
    texts: Texts | None = None
    encoding: Encoding = "list"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.image is None) == (self.texts is None):
            raise ValueError("an embed job has an image or texts, one of the two")
        return self

    @property
    def shown(self) -> str | None:
        """What logs, events and results may show of its image."""
        return None if self.image is None else public_uri(self.image)


class RankJob(_ImageJob):
    """Find the texts that fit an image best: a shortlist by ITC, ranked by ITM and ITC."""

    task: Literal["rank"] = "rank"
    texts: tuple[Text, ...] = Field(min_length=1, max_length=4_096)
    k: ShortlistSize = 32
    position_zero: PositionZero = None
