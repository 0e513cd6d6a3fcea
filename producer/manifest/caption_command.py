"""`captionq caption`: many images, from wherever they are listed."""

from dataclasses import replace
from typing import Annotated

import typer

from producer.contract import CaptionChunk
from producer.exits import exit_codes
from producer.flags import CaptionFlags, ShardFormat, SinkFormat
from producer.groups import with_groups
from producer.manifest.command import ROWS, RUN_EXIT_CODES, carry_out
from producer.manifest.flags import (
    ANY_IMAGE,
    LanguageColumn,
    Output,
    RunFlags,
    Sink,
    Sources,
    file_named,
)

EXAMPLES = (
    "Examples:\n\n"
    "captionq caption photos/ -o captions.jsonl\n\n"
    "captionq caption photos/ --beside --skip-existing\n\n"
    "captionq caption photos/ --language de --style alt_text -o alt.csv\n\n"
    "captionq caption 'scans/**/page-*.png' more/*.jpg -o captions.csv --ordered\n\n"
    "captionq caption shop.csv --column picture -o captions.parquet\n\n"
    "captionq caption shop.jsonl --language-column lang --style alt_text -o alt.csv\n\n"
    "captionq caption 'laion/*.parquet' --column URL -o captions.parquet --in-flight 256\n\n"
    "captionq caption s3://photos/2026/ -o captions.jsonl\n\n"
    "captionq caption urls.txt --sink s3://results/run-7/ --sink-format parquet -o shards.csv\n\n"
    "captionq caption photos/ --sample --top-p 0.95 -n 5 --weigh -o best-of-five.jsonl\n\n"
    "find . -name '*.jpg' | captionq caption - | jq -r .caption\n\n"
    "A run that was interrupted goes on with the same command and --resume: no image is captioned "
    "twice, none is left out.\n\n"
    "An image whose captions --weigh refuses altogether has succeeded, and has no caption.\n\n"
    "Each row has: index, source (where the reference stands), image, state, caption, language "
    "(the one asked for), score, mean_logprob, itm_probability (with --weigh), alternatives, "
    + ROWS
    + RUN_EXIT_CODES
)


@with_groups
def caption(
    *,
    sources: Sources,
    output: Output = "-",
    beside: Annotated[
        bool, typer.Option("--beside", help="Write cat.txt beside cat.jpg, for files here.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="With --beside: not where a text is already.")
    ] = False,
    captions: CaptionFlags,
    language_column: LanguageColumn = None,
    sink: Sink = None,
    sink_format: SinkFormat = ShardFormat.JSONL,
    run: RunFlags,
) -> None:
    """Caption many images, from files, folders, lists, tables and buckets, as a stream.

    Work is sent in chunks, a bounded number at a time, so that a million images need no more
    memory than a hundred; each image succeeds or fails alone. Local files travel as file:// URIs,
    which workers read under their CAPTIONQ_FILE_ROOT; with CAPTIONQ_UPLOAD_URL=s3://... they are
    uploaded first.
    """
    with exit_codes():
        chunk = CaptionChunk(
            images=ANY_IMAGE,
            options=captions.options,
            filter=captions.filter,
            sink=sink,
            sink_format=sink_format.value,
            **run.seen(),
        )
        request = run.request(
            sources,
            chunk,
            file_named(output),
            columns=replace(run.columns, language=language_column),
            beside=beside,
            skip_existing=skip_existing,
        )
        carry_out(request, run)
