"""`captionq validate`: how well many captions fit their images, and a report of it."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.contract import MatchChunk
from producer.exits import exit_codes, read_settings
from producer.groups import with_groups
from producer.manifest.command import ROWS, RUN_EXIT_CODES, carry_out
from producer.manifest.flags import ANY_IMAGE, RunFlags
from producer.manifest.session import Session
from producer.manifest.tables import Columns
from producer.validation.histogram import draw_histogram, new_figure
from producer.validation.pictures import Pictures
from producer.validation.scores import read_scores
from producer.validation.sheet import write_sheet
from producer.validation.tally import Tally

VALIDATE_EXAMPLES = (
    "Examples:\n\n"
    "captionq validate pairs.csv -o report/\n\n"
    "captionq validate coco.jsonl --column file_name --base images/ -o report/ --min-itm 0.3\n\n"
    "captionq validate 'laion/*.parquet' --column URL --caption-column TEXT -o report/ --scores "
    "parquet --in-flight 256\n\n"
    "Then report/ has scores.jsonl (or as --scores says), histogram.png, worst.html (the 50 pairs "
    "with the lowest itm_probability, on one page) and summary.json. An image that several rows of "
    "a chunk name is fetched and encoded once. A run that was interrupted goes on with the same "
    "command and --resume; one that has ended draws its report anew, with another --min-itm as "
    "well.\n\n"
    "Each row of the scores has: index, source (where the pair stands), image, state, caption, "
    "itm_probability, itm_logit, itc_cosine, score (logit + cosine), calibrated_probability and "
    "decision (of a calibrated model), uri, " + ROWS + RUN_EXIT_CODES
)


class ScoresFormat(StrEnum):
    """What scores are written as."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@with_groups
def validate(
    *,
    pairs: Annotated[
        list[str],
        typer.Argument(
            metavar="PAIRS...",
            help="Tables of images and captions: .csv, .tsv, .jsonl or .parquet, or patterns of "
            "such ('a/*.parquet').",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the report.", file_okay=False
        ),
    ],
    min_itm: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Pairs with a lower ITM probability are counted, and marked."
        ),
    ] = 0.5,
    caption_column: Annotated[
        str | None,
        typer.Option(help="Column with the captions; by default caption, text or such."),
    ] = None,
    scores: Annotated[
        ScoresFormat, typer.Option(help="What the scores are written as; parquet is a folder.")
    ] = ScoresFormat.JSONL,
    run: RunFlags,
) -> None:
    """Weigh many captions against their images, as a stream, and report on the scores.

    Tells wrong captions of a data set from right ones: BLIP's own filter (CapFilt) keeps pairs
    whose ITM probability is 0.5 or more.
    """
    with exit_codes():
        new_figure()  # what is not installed shows before any work
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"scores.{scores.value}"
        chunk = MatchChunk(images=ANY_IMAGE, texts_per_image=(("-",),), **run.seen())
        columns = Columns(run.column, caption_column, paired=True)

        def report(session: Session) -> tuple[str, dict[str, Any]]:
            return _report(session, path, min_itm)

        carry_out(run.request(pairs, chunk, path, columns=columns), run, report)


def _report(session: Session, path: Path, min_itm: float) -> tuple[str, dict[str, Any]]:
    tally = Tally(min_itm)
    if path.exists():
        tally.add(read_scores(path))
    folder = path.parent
    draw_histogram(tally, folder / "histogram.png")
    write_sheet(tally, Pictures(read_settings().s3_endpoint_url), folder / "worst.html")
    members = {"pairs": session.counts.total()} | tally.document()
    (folder / "summary.json").write_text(json.dumps(members, indent=2) + "\n")
    return f"\n{tally.words()}\nReport: {folder}/worst.html, {folder}/histogram.png", members
