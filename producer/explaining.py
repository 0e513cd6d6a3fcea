"""Where a model looked for each word: how a job asks for it, and what its result says."""

from base64 import b64decode
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from producer.options import Model
from producer.references import sink_folder

Method = Literal["attention", "rollout", "gradcam"]
"""occlusion takes 64 passes of the whole model: no job may hold up the device for so long, and it
is for comparing by hand."""


class ExplainOptions(Model):
    """How to find out where the model looked. docs/attention.md says what the methods are worth."""

    method: Method = "attention"
    layers: Annotated[tuple[int, ...], Field(min_length=1, max_length=64)] | None = Field(
        None, description="Of the text stack, from 0, or from its end below 0; absent, the usual"
    )
    heads: Annotated[tuple[int, ...], Field(min_length=1, max_length=64)] | None = Field(
        None, description="Of these layers; absent, all"
    )
    raw: bool = Field(
        False, description="With a sink: every layer's and head's attention probabilities as well"
    )
    pictures: bool = Field(
        False,
        description="With a sink: an overlay for each word, a sheet of them, and a page as well",
    )
    sink: Annotated[str, Field(max_length=1_024), AfterValidator(sink_folder)] | None = Field(
        None,
        description="A folder, s3://bucket/prefix/ or file:///folder/, that the worker writes the "
        "maps to, an .npz for each caption or text",
    )

    inline: bool = Field(
        False,
        description="The result itself has each word's map, and a small picture of the image, so "
        "that whoever shows them needs no file, and not the image",
    )

    @model_validator(mode="after")
    def _files_go_somewhere(self) -> Self:
        for name in ("raw", "pictures"):
            if getattr(self, name) and self.sink is None:
                raise ValueError(f"{name} are written to a sink, and there is none")
        return self


class WordExplanation(Model):
    """Where the model looked for one word, in pixels of the upright original image."""

    text: str
    logprob: float | None = Field(
        None, description="Of the word, natural logarithm; of captions alone"
    )
    peak: tuple[float, float] = Field(description="[x, y] of where it looked most")
    box: tuple[int, int, int, int] = Field(
        description="[left, top, right, bottom] round the patches that hold half of its map"
    )
    entropy: float = Field(ge=0, description="Of the map, in nats: 0 is a single patch")
    coverage: float = Field(ge=0, le=1, description="The box's share of the image's area")
    map: str | None = Field(
        None,
        description="Base64 of a byte for each cell of map_grid, row by row; 255 is its largest. "
        "Where inline was asked for",
    )

    def cells(self) -> bytes:
        """The map's bytes, row by row. Raises ValueError where there is none."""
        if self.map is None:
            raise ValueError("the job did not ask for maps inline")
        return b64decode(self.map, validate=True)


class WordsExplained(Model):
    """Where the model looked for the words of one caption or text, in their order."""

    text: str
    method: Method
    grid: tuple[int, int] = Field(description="Rows and columns of patches")
    words: tuple[WordExplanation, ...]
    maps: str | None = Field(None, description="The URI of its .npz, where there was a sink")
    map_grid: tuple[int, int] | None = Field(
        None,
        description="Rows and columns of its words' inline maps: of the grid without what was "
        "padding; fewer and larger cells where there are very many words",
    )
    map_box: tuple[float, float, float, float] | None = Field(
        None,
        description="[left, top, right, bottom] of these cells together, in pixels of the upright "
        "original: less than the image where it was cropped, up to a cell beyond it where it was "
        "padded",
    )


class Preview(Model):
    """The image made small, a JPEG of the pixels that the worker decoded, upright, without any of
    the file's own bytes: safe to be shown, whatever the file was."""

    data: str = Field(description="Base64 of the JPEG, of at most 64,000 bytes")
    width: int = Field(ge=1, le=512)
    height: int = Field(ge=1, le=512)
