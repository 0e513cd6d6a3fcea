"""`captionq caption`: many images, from wherever they are listed."""

import math
from pathlib import Path
from typing import Annotated

import typer

from producer.contract import MAX_CHUNK, CaptionChunk
from producer.exits import EXIT_CODES, exit_codes, read_settings
from producer.flags import (
    Beams,
    Count,
    InLane,
    MaxTokens,
    Mode,
    ModelId,
    Prompt,
    Resolution,
    Sample,
    Seed,
    ShardFormat,
    View,
    caption_options,
)
from producer.manifest.attended import attend
from producer.manifest.request import Request

EXAMPLES = (
    "Examples:\n\n"
    "captionq caption photos/ -o captions.jsonl\n\n"
    "captionq caption photos/ --beside --skip-existing\n\n"
    "captionq caption 'scans/**/page-*.png' more/*.jpg -o captions.csv --ordered\n\n"
    "captionq caption shop.csv --column picture -o captions.parquet\n\n"
    "captionq caption 'laion/*.parquet' --column URL -o captions.parquet --in-flight 256\n\n"
    "captionq caption s3://photos/2026/ -o captions.jsonl\n\n"
    "captionq caption urls.txt --sink s3://results/run-7/ --sink-format parquet -o shards.csv\n\n"
    "find . -name '*.jpg' | captionq caption - | jq -r .caption\n\n"
    "A run that was interrupted goes on with the same command and --resume: no image is captioned "
    "twice, none is left out.\n\n"
    "Each row has: index, source (where the reference stands), image, state, caption, score, "
    "mean_logprob, alternatives, code and message (of what failed), attempts, width, height, "
    "format, sha256, shard, job_id. A row of a list that names no image has the code job_invalid, "
    "and the others go on.\n\n" + EXIT_CODES.rstrip().rstrip(".") + "; 130 interrupted.\n"
)


def caption(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="An image, a folder (all images in it and below), a pattern ('a/**/*.png'), a "
            "list (.txt: a URI or path a line, # for comments), a table (.csv, .tsv, .jsonl, "
            ".parquet), s3://bucket/prefix/, a URI, or - for a list on standard input.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="NAME.jsonl, NAME.csv, or NAME.parquet (a folder of parts); - for JSON Lines on "
            "standard output. A NAME.jsonl.journal beside it is what --resume needs.",
        ),
    ] = "-",
    beside: Annotated[
        bool, typer.Option("--beside", help="Write cat.txt beside cat.jpg, for files here.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="With --beside: not where a text is already.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run; or begin, if none is.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, and drop what the output has.")
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(help="Column of tables with the references; by default image, url or such."),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of the relative paths in lists; by default the list's own."),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Another place for the journal.", dir_okay=False)
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Rows in the order of the source, not as completed.")
    ] = False,
    chunk: Annotated[
        int, typer.Option(min=1, max=MAX_CHUNK, help="Images of one message.")
    ] = MAX_CHUNK,
    in_flight: Annotated[
        int, typer.Option(min=1, max=4_096, help="Most chunks submitted and not done.")
    ] = 64,
    patience_s: Annotated[
        float | None,
        typer.Option(
            "--patience",
            min=0,
            metavar="SECONDS",
            help="Longest outage of the broker that is waited out; by default any.",
        ),
    ] = None,
    beams: Beams = None,
    count: Count = 1,
    sample: Sample = False,
    seed: Seed = None,
    max_tokens: MaxTokens = 20,
    prompt: Prompt = None,
    mode: Mode = View.STRETCH,
    resolution: Resolution = None,
    model: ModelId = None,
    lane: Annotated[
        InLane, typer.Option(help="interactive overtakes all bulk work: for a few images.")
    ] = InLane.BULK,
    sink: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="s3://bucket/prefix/ or file:///folder/ that workers write the captions to, a "
            "shard for each chunk. Rows here then say which shard has an image.",
        ),
    ] = None,
    sink_format: Annotated[ShardFormat, typer.Option(help="Of the shards.")] = ShardFormat.JSONL,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The summary as JSON: on stdout, or stderr where rows go."),
    ] = False,
) -> None:
    """Caption many images, from files, folders, lists, tables and buckets, as a stream.

    Work is sent in chunks, a bounded number at a time, so that a million images need no more
    memory than a hundred; each image succeeds or fails alone. Local files travel as file:// URIs,
    which workers read under their CAPTIONQ_FILE_ROOT; with CAPTIONQ_UPLOAD_URL=s3://... they are
    uploaded first.
    """
    with exit_codes():
        settings = read_settings()
        request = Request(
            sources=tuple(sources),
            chunk=CaptionChunk(
                images=("https://example.com/",),
                options=caption_options(beams, count, sample, seed, max_tokens, prompt),
                mode=mode.value,
                resolution=resolution,
                model=model,
                lane=lane.value,
                sink=sink,
                sink_format=sink_format.value,
            ),
            column=column,
            base=base,
            output=None if output == "-" else Path(output),
            beside=beside,
            skip_existing=skip_existing,
            journal=journal,
            resume=resume,
            overwrite=overwrite,
            size=chunk,
            in_flight=in_flight,
            ordered=ordered,
            patience_s=math.inf if patience_s is None else patience_s,
        )
        attend(request, settings, quiet=quiet, as_json=as_json)
