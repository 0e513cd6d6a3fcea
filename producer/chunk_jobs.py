"""Jobs of up to 64 images on the wire: chunks."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from producer.embedding import Encoding
from producer.filtering import CaptionFilter
from producer.jobs import (
    BaseJob,
    CaptionEmbedding,
    CaptionJob,
    EmbedJob,
    MatchJob,
    PositionZero,
    ShortlistSize,
    Text,
    Texts,
)
from producer.language import Language
from producer.options import CaptionOptions
from producer.queues import BULK, INTERACTIVE, Lane
from producer.references import ImageRef, images_from, sink_folder

MAX_CHUNK = 64
"""Images of a chunk."""


class _Chunk(BaseJob):
    images: tuple[ImageRef, ...] = Field(
        min_length=1, max_length=MAX_CHUNK, description="Each succeeds or fails alone"
    )
    lane: Lane = Field(BULK, description="'interactive' overtakes 'bulk'")
    sink: Annotated[str, Field(max_length=1_024), AfterValidator(sink_folder)] | None = Field(
        None,
        description="A folder, s3://bucket/prefix/ or file:///folder/, that the worker writes the "
        "items to as one shard, in place of the result",
    )
    sink_format: Literal["jsonl", "parquet"] = "jsonl"

    @property
    def shown(self) -> str:
        """What logs, events and results may show of its images."""
        return images_from(len(self.images), self.images[0])


class CaptionChunk(_Chunk):
    """Say in words what each of up to 64 images shows: one message, and one result."""

    task: Literal["caption_chunk"] = "caption_chunk"
    options: CaptionOptions = CaptionOptions()
    languages: tuple[Language, ...] | None = Field(
        None, description="For each image its own, in their order; null is language's"
    )
    filter: CaptionFilter | None = Field(None, description="Of each image, as in a caption job")
    embed: CaptionEmbedding = None

    @model_validator(mode="after")
    def _a_language_each(self) -> Self:
        if self.languages is not None and len(self.languages) != len(self.images):
            raise ValueError("languages has one entry for each of the images")
        return self

    def one(self, index: int) -> CaptionJob:
        """The job of one image, from what is valid already."""
        own = _of_one(self, index) | {"options": self.options, "regions": None, "explain": None}
        if self.languages is not None and self.languages[index] is not None:
            own["language"] = self.languages[index]
        return CaptionJob.model_construct(**own, filter=self.filter, embed=self.embed)


class MatchChunk(_Chunk):
    """Say how well texts fit each of up to 64 images: the same texts, or each image's own."""

    task: Literal["match_chunk"] = "match_chunk"
    texts: Texts | None = None
    texts_per_image: tuple[Texts, ...] | None = Field(
        None, description="In place of texts: for each image its own, in their order"
    )
    position_zero: PositionZero = None

    @model_validator(mode="after")
    def _texts_of_all(self) -> Self:
        if (self.texts is None) == (self.texts_per_image is None):
            raise ValueError("a match chunk has texts or texts_per_image, one of the two")
        if self.texts_per_image is not None and len(self.texts_per_image) != len(self.images):
            raise ValueError("texts_per_image has one entry for each of the images")
        return self

    def one(self, index: int) -> MatchJob:
        """The job of one image, from what is valid already."""
        texts = self.texts if self.texts_per_image is None else self.texts_per_image[index]
        own = _of_one(self, index) | {"texts": texts, "explain": None}
        return MatchJob.model_construct(**own, position_zero=self.position_zero)


class EmbedChunk(_Chunk):
    """Place each of up to 64 images in the space where cosines compare them (ITC)."""

    task: Literal["embed_chunk"] = "embed_chunk"
    encoding: Encoding = "list"

    def one(self, index: int) -> EmbedJob:
        """The job of one image, from what is valid already."""
        own = _of_one(self, index)
        return EmbedJob.model_construct(**own, texts=None, encoding=self.encoding)


class RankChunk(_Chunk):
    """Find those of up to 64 images that fit a text best: a shortlist by ITC, ranked by ITM and
    ITC."""

    task: Literal["rank_chunk"] = "rank_chunk"
    lane: Lane = Field(INTERACTIVE, description="'bulk' gives way to 'interactive'")
    text: Text
    k: ShortlistSize = 32
    position_zero: PositionZero = None

    def one(self, index: int) -> MatchJob:
        """The job of one image, from what is valid already."""
        own = _of_one(self, index)
        own |= {"texts": (self.text,), "explain": None}
        return MatchJob.model_construct(**own, position_zero=self.position_zero)


def _of_one(chunk: _Chunk, index: int) -> dict[str, Any]:
    names = (
        "job_id", "lane", "model", "language", "adapter", "mode", "resolution", "submitted_at",
        "expires_at",
    )  # fmt: skip
    return {name: getattr(chunk, name) for name in names} | {"image": chunk.images[index]}
