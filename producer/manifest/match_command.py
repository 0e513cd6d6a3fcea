"""`captionq match`: the same texts weighed against many images."""

from typing import Annotated

import typer

from producer.contract import MatchChunk
from producer.exits import exit_codes
from producer.flags import ShardFormat, SinkFormat
from producer.groups import with_groups
from producer.manifest.command import ROWS, RUN_EXIT_CODES, carry_out
from producer.manifest.flags import (
    ANY_IMAGE,
    Output,
    RunFlags,
    Sink,
    Sources,
    file_named,
)

MATCH_EXAMPLES = (
    "Examples:\n\n"
    "captionq match photos/ --text 'indoors' --text 'outdoors' -o places.csv\n\n"
    "captionq match s3://photos/2026/ --text 'a person' -o people.parquet --resume\n\n"
    "captionq match urls.txt --text 'a cat' --text 'a dog' | jq '{image, text}'\n\n"
    "The scores of each text say how well it fits the image, whatever the other texts say.\n\n"
    "Each row has: index, source (where the reference stands), image, state, text (the one that "
    "fits best), itm_probability, itm_logit, itc_cosine, score (logit + cosine, what texts are "
    "ranked by), calibrated_probability and decision (of a calibrated model), matches (all texts "
    "with the same, best first), " + ROWS + RUN_EXIT_CODES
)


@with_groups
def match(
    *,
    sources: Sources,
    text: Annotated[
        list[str], typer.Option(help="A text to weigh; may be repeated, up to 256 times.")
    ],
    output: Output = "-",
    sink: Sink = None,
    sink_format: SinkFormat = ShardFormat.JSONL,
    run: RunFlags,
) -> None:
    """Say how well each of some texts fits each of many images, as a stream.

    Images come from files, folders, lists, tables and buckets, and travel as those of captionq
    caption do; a run that was interrupted goes on with the same command and --resume. Captions
    that belong to one image each are weighed by captionq validate.
    """
    with exit_codes():
        chunk = MatchChunk(
            images=ANY_IMAGE,
            texts=tuple(text),
            sink=sink,
            sink_format=sink_format.value,
            **run.seen(),
        )
        carry_out(run.request(sources, chunk, file_named(output)), run)
