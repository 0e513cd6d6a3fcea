"""Options of the commands that are runs, in groups that each of these commands has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.contract import MAX_CHUNK
from producer.flags import Adapter, InLane, Language, Mode, ModelId, Resolution, View
from producer.manifest.request import Request
from producer.manifest.tables import Columns

_SOURCES = typer.Argument(
    metavar="SOURCE...",
    help="An image, a folder (all images in it and below), a pattern ('a/**/*.png'), a "
    "list (.txt: a URI or path a line, # for comments), a table (.csv, .tsv, .jsonl, "
    ".parquet), s3://bucket/prefix/, a URI, or - for a list on standard input.",
)
Sources = Annotated[list[str], _SOURCES]
SourcesIfAny = Annotated[list[str] | None, _SOURCES]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="NAME.jsonl, NAME.csv, or NAME.parquet (a folder of parts); - for JSON Lines on "
        "standard output. A NAME.jsonl.journal beside it is what --resume needs.",
    ),
]
Sink = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="s3://bucket/prefix/ or file:///folder/ that workers write the results to, a "
        "shard for each chunk. Rows here then say which shard has an image.",
    ),
]

LanguageColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of tables with the language of each caption, as BCP 47; --language where it "
        "is empty."
    ),
]

ANY_IMAGE = ("https://example.com/",)
"""The images of a chunk that says how images are treated, and not yet which."""


@dataclass(frozen=True)
class FlowFlags:
    """How images are found, sent and seen."""

    column: Annotated[
        str | None,
        typer.Option(help="Column of tables with the references; by default image, url or such."),
    ] = None
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of the relative paths in lists; by default the list's own."),
    ] = None
    chunk: Annotated[int, typer.Option(min=1, max=MAX_CHUNK, help="Images of one message.")] = (
        MAX_CHUNK
    )
    in_flight: Annotated[
        int, typer.Option(min=1, max=4_096, help="Most chunks submitted and not done.")
    ] = 64
    patience: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Longest outage of the broker that is waited out; by default any.",
        ),
    ] = None
    mode: Mode = View.STRETCH
    resolution: Resolution = None
    model: ModelId = None
    language: Language = None
    adapter: Adapter = None
    lane: Annotated[
        InLane, typer.Option(help="interactive overtakes all bulk work: for a few images.")
    ] = InLane.BULK
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The summary as JSON: on stdout, or stderr where rows go."),
    ] = False

    @property
    def columns(self) -> Columns:
        """What is read of tables."""
        return Columns(self.column)

    @property
    def patience_s(self) -> float:
        """Longest outage that is waited out, in seconds."""
        return math.inf if self.patience is None else self.patience

    def seen(self) -> dict[str, Any]:
        """How a job sees its images, which workers take it, and when."""
        return {
            "mode": self.mode.value,
            "resolution": self.resolution,
            "model": self.model,
            "language": self.language,
            "adapter": self.adapter,
            "lane": self.lane.value,
        }


@dataclass(frozen=True)
class RunFlags(FlowFlags):
    """The same, and how a run is kept."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run; or begin, if none is.")
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, and drop what the output has.")
    ] = False
    journal: Annotated[
        Path | None, typer.Option(help="Another place for the journal.", dir_okay=False)
    ] = None
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Rows in the order of the source, not as completed.")
    ] = False

    def request(
        self, sources: Sequence[str], chunk: Any, output: Path | None, **others: Any
    ) -> Request:
        """What a run is asked for. `others` are further fields of Request."""
        own = {
            "columns": self.columns,
            "base": self.base,
            "journal": self.journal,
            "resume": self.resume,
            "overwrite": self.overwrite,
            "size": self.chunk,
            "in_flight": self.in_flight,
            "ordered": self.ordered,
            "patience_s": self.patience_s,
        }
        return Request(tuple(sources), chunk, output=output, **own | others)


def file_named(output: str) -> Path | None:
    """The file that --output names; None for standard output."""
    return None if output == "-" else Path(output)
