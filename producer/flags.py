"""Options of the command line that several commands share: what is to be done with images."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from producer.contract import CaptionFilter, CaptionOptions


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


class Styled(StrEnum):
    """The styles of captions."""

    ALT_TEXT = "alt_text"
    SHORT = "short"
    LONG = "long"


class Look(StrEnum):
    """Ways to find out where a model looked."""

    ATTENTION = "attention"
    ROLLOUT = "rollout"
    GRADCAM = "gradcam"


JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as submit printed it.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document per line, and nothing else.")
]
TimeoutS = Annotated[
    float, typer.Option("--timeout", min=0, metavar="SECONDS", help="Longest time to wait.")
]
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
Language = Annotated[
    str | None,
    typer.Option(
        metavar="TAG",
        help="Of the words, as BCP 47: de, pt-BR. Workers answer by the nearest pack they have.",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The pack that answers, by its name: of a domain, or such."),
]


@dataclass(frozen=True)
class CaptionFlags:
    """How images are captioned, and whether captions are weighed."""

    style: Annotated[
        Styled | None,
        typer.Option(
            help="alt_text: at most 125 characters, without 'a picture of', ending cleanly; short; "
            "long. Options given besides hold."
        ),
    ] = None
    beams: Annotated[
        int | None,
        typer.Option(min=1, max=10, help="1 is greedy search. By default 3, or 1 with --sample."),
    ] = None
    count: Annotated[
        int,
        typer.Option("--count", "-n", min=1, max=10, help="Captions, of the beams, or samples."),
    ] = 1
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw each token instead of searching.")
    ] = False
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="With --sample: from the likeliest of this mass.")
    ] = 1.0
    temperature: Annotated[
        float, typer.Option(min=0.01, max=100, help="With --sample: above 1, more daring.")
    ] = 1.0
    seed: Annotated[int | None, typer.Option(help="With --sample: determines what is drawn.")] = (
        None
    )
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a caption. By default 20, or the style's.")
    ] = None
    prompt: Annotated[str | None, typer.Option(help="Words that the caption continues.")] = None
    weigh: Annotated[
        bool,
        typer.Option(
            "--weigh",
            help="Rank the -n captions by how well they match the image, and refuse poor ones; "
            "workers have to serve a matching model.",
        ),
    ] = False
    min_itm: Annotated[
        float,
        typer.Option(min=0, max=1, help="With --weigh: least probability of a match."),
    ] = 0.5
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD", help="With --weigh: a word or phrase to refuse; may be repeated."
        ),
    ] = None

    @property
    def options(self) -> CaptionOptions:
        """How to caption.

        Raises:
            pydantic.ValidationError: the options do not go together.
        """
        if_given = {"num_beams": self.beams, "max_new_tokens": self.max_tokens}
        named: dict[str, Any] = {name: one for name, one in if_given.items() if one is not None}
        return CaptionOptions(
            **named,
            style=None if self.style is None else self.style.value,
            num_return_sequences=self.count,
            do_sample=self.sample,
            top_p=self.top_p,
            temperature=self.temperature,
            seed=self.seed,
            prompt=self.prompt,
        )

    @property
    def filter(self) -> CaptionFilter | None:
        """How captions are weighed; None where they are not.

        Raises:
            ValueError: the options do not go together.
        """
        if self.weigh:
            return CaptionFilter(
                min_itm_probability=self.min_itm, banned_words=tuple(self.refuse or ())
            )
        if self.refuse or self.min_itm != type(self).min_itm:
            raise ValueError("--min-itm and --refuse go with --weigh.")
        return None
