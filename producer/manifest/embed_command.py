"""`captionq embed`: many images, or some texts, as vectors that cosines compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from producer.client import Client
from producer.contract import EmbedChunk
from producer.exits import JOB_FAILED, exit_codes, read_settings
from producer.flags import Encoding, ShardFormat, SinkFormat, Written
from producer.groups import with_groups
from producer.manifest.command import ROWS, RUN_EXIT_CODES, carry_out
from producer.manifest.flags import (
    ANY_IMAGE,
    Output,
    RunFlags,
    Sink,
    SourcesIfAny,
    file_named,
)
from producer.manifest.session import holds_something, opened_output
from producer.manifest.texts import columns, embedded
from producer.queues import INTERACTIVE

EMBED_EXAMPLES = (
    "Examples:\n\n"
    "captionq embed photos/ -o embeddings.jsonl\n\n"
    "captionq embed 'laion/*.parquet' --column URL -o embeddings.parquet --in-flight 256\n\n"
    "captionq embed s3://photos/2026/ -o embeddings.csv --encoding float16 --resume\n\n"
    "captionq embed --text 'a red bicycle' --text 'a blue one' | jq .embedding\n\n"
    "A vector has length 1: the dot product of two is their cosine. Only vectors of the same model "
    "and revision can be compared.\n\n"
    "Each row has: index, source (where the reference stands), image, state, embedding, encoding, "
    "model, revision, " + ROWS + "Those of texts have: index, text, state, embedding, encoding, "
    "model, revision, code, message, job_id.\n\n" + RUN_EXIT_CODES
)


@with_groups
def embed(
    *,
    sources: SourcesIfAny = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="A text to embed, in place of images, ahead of bulk work; may be repeated."
        ),
    ] = None,
    output: Output = "-",
    encoding: Encoding = Written.LIST,
    sink: Sink = None,
    sink_format: SinkFormat = ShardFormat.JSONL,
    run: RunFlags,
) -> None:
    """Place many images, or some texts, in the space where cosines compare them (ITC).

    Images come from files, folders, lists, tables and buckets, and travel as those of captionq
    caption do; a run that was interrupted goes on with the same command and --resume.
    """
    with exit_codes():
        if bool(sources) == bool(text):
            raise ValueError("Name images, or texts with --text: one of the two.")
        if text:
            _embed_texts(text, encoding, file_named(output), run)
            return
        chunk = EmbedChunk(
            images=ANY_IMAGE,
            encoding=encoding.value,
            sink=sink,
            sink_format=sink_format.value,
            **run.seen(),
        )
        carry_out(run.request(sources or (), chunk, file_named(output)), run)


def _embed_texts(texts: Sequence[str], encoding: Written, path: Path | None, run: RunFlags) -> None:
    if path is not None and holds_something(path) and not run.overwrite:
        raise ValueError(f"{path} is there: --overwrite starts anew.")
    output = opened_output(path, columns(encoding.value))
    try:
        output.cut(0)
        with Client(settings=read_settings()) as client:
            # A few texts wait for no bulk work, of which there may be hours.
            fields = {"model": run.model, "language": run.language, "adapter": run.adapter}
            rows = embedded(client, texts, encoding.value, lane=INTERACTIVE, **fields)
        output.write(rows)
        output.commit()
    finally:
        output.close()
    if any(row["code"] for row in rows):
        raise typer.Exit(JOB_FAILED)
