"""Options of the command line that several commands share: what is to be done with images."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from producer.contract import CaptionOptions


class Task(StrEnum):
    """The kinds of job."""

    CAPTION = "caption"
    MATCH = "match"
    EMBED = "embed"
    RANK = "rank"


class View(StrEnum):
    """The resolution modes."""

    STRETCH = "stretch"
    PAD = "pad"
    CROP = "crop"
    NATIVE = "native"


class InLane(StrEnum):
    """The lanes."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class ShardFormat(StrEnum):
    """What shards are written as."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class Written(StrEnum):
    """How embeddings are written."""

    LIST = "list"
    FLOAT32 = "float32"
    FLOAT16 = "float16"


JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as submit printed it.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document per line, and nothing else.")
]
TimeoutS = Annotated[
    float, typer.Option("--timeout", min=0, metavar="SECONDS", help="Longest time to wait.")
]
Beams = Annotated[
    int | None,
    typer.Option(min=1, max=10, help="1 is greedy search. By default 3, or 1 with --sample."),
]
Count = Annotated[
    int, typer.Option("--count", "-n", min=1, max=10, help="Captions, of the beams, or samples.")
]
Sample = Annotated[bool, typer.Option("--sample", help="Draw each token instead of searching.")]
Seed = Annotated[int | None, typer.Option(help="With --sample: determines what is drawn.")]
MaxTokens = Annotated[int, typer.Option(help="Most tokens of a caption.")]
Prompt = Annotated[str | None, typer.Option(help="Words that the caption continues.")]
Mode = Annotated[View, typer.Option(help="How an image that is not square is seen; docs/model.md.")]
Resolution = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Side of the square seen: finer detail.")
]
Encoding = Annotated[
    Written,
    typer.Option(help="Of embeddings: numbers, or base64 of little-endian float32 or float16."),
]
SinkFormat = Annotated[ShardFormat, typer.Option(help="Of the shards.")]
ModelId = Annotated[
    str | None, typer.Option(help="Only workers that serve this model take the jobs.")
]


def caption_options(
    beams: int | None,
    count: int,
    sample: bool,
    seed: int | None,
    max_tokens: int,
    prompt: str | None,
) -> CaptionOptions:
    """How to caption, as these options say it.

    Raises:
        pydantic.ValidationError: they do not go together.
    """
    named: dict[str, Any] = {} if beams is None else {"num_beams": beams}
    return CaptionOptions(
        **named,
        num_return_sequences=count,
        do_sample=sample,
        seed=seed,
        max_new_tokens=max_tokens,
        prompt=prompt,
    )
