"""`captionq index`: what was captioned, kept for `captionq search`."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.contract import CaptionChunk
from producer.exits import EXIT_CODES, JOB_FAILED, exit_codes, read_settings
from producer.flags import AsJson, CaptionFlags
from producer.groups import with_groups
from producer.index.build import Indexed, IndexedOutput
from producer.index.entry import LeftOut
from producer.index.filling import Filling
from producer.index.place import Place
from producer.index.results import Results
from producer.index.search_command import IndexAt
from producer.index.table import Stats, VectorIndex
from producer.manifest.command import RUN_EXIT_CODES, carry_out
from producer.manifest.flags import ANY_IMAGE, RunFlags, Sources
from producer.manifest.session import Session
from producer.settings import ProducerSettings

app = typer.Typer(
    help="Keep what was captioned, with embeddings, for captionq search.\n\n"
    "The index is a folder (CAPTIONQ_INDEX, by default ~/.captionq/index), or s3://bucket/prefix/ "
    'for a team. It needs LanceDB, which comes with the extra "search".\n\n' + EXIT_CODES,
    epilog="Start with: captionq index build photos/ && captionq search 'a red car'",
    no_args_is_help=True,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


@app.command(
    epilog="Examples:\n\n"
    "captionq index build photos/\n\n"
    "captionq index build s3://photos/2026/ --index s3://team/index/\n\n"
    "captionq index build shop.csv --column picture --resume\n\n"
    "captionq index build photos/ --sample -n 5 --weigh\n\n" + RUN_EXIT_CODES
)
@with_groups
def build(
    *, sources: Sources, index: IndexAt = None, captions: CaptionFlags, run: RunFlags
) -> None:
    """Caption and embed images, and add them to the index.

    Workers need a captioning and a matching model. An image that is there already, by its
    reference, is replaced. A run that was interrupted goes on with --resume; --overwrite forgets
    it, and what it added stays.
    """
    with exit_codes():
        settings = read_settings()
        place = Place.of(index, settings)
        filling = Filling(VectorIndex(place))
        filling.index.space()  # an index that cannot be opened ends it here
        chunk = CaptionChunk(
            images=ANY_IMAGE,
            options=captions.options,
            filter=captions.filter,
            embed="float16",
            **run.seen(),
        )
        journal = run.journal or journal_of(place, settings)
        request = run.request(sources, chunk, None, index=place.uri, journal=journal)

        def ending(_: Session) -> tuple[str, dict[str, Any]]:
            filling.finish()
            return f"\n{filling.words()}", filling.document()

        carry_out(
            request,
            run,
            ending,
            rows=Indexed(chunk, filling),
            into=lambda output: IndexedOutput(output, filling),
        )


@app.command(
    epilog="Examples:\n\n"
    "captionq index add s3://results/run-7/\n\n"
    "captionq index add /data/shards/ more.jsonl\n\n"
    "captionq submit cat.jpg --wait --json > cat.jsonl; captionq index add cat.jsonl\n\n"
    + EXIT_CODES
)
def add(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS...",
            help="JSON Lines or Parquet: files, folders (with all below), file:///..., or "
            "s3://bucket/prefix/ that workers wrote shards to.",
        ),
    ],
    index: IndexAt = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Add results that carry embeddings: what jobs with `embed` set gave, in files or sinks.

    Adding the same results again changes nothing. What has no embedding is counted and told; what
    cannot be read is told by its place, and ends with exit code 1 when the others are added.
    """
    with exit_codes():
        settings = read_settings()
        filling = Filling(VectorIndex(Place.of(index, settings)))
        filling.index.space()
        found = Results(tuple(results), settings.s3_endpoint_url, lambda said: _say(said, quiet))
        for entry in found:
            filling.take(entry)
            if filling.due:
                filling.flush()
        filling.finish()
        if as_json:
            typer.echo(json.dumps(filling.document()))
        else:
            _say(filling.words(), quiet)
        if filling.left_out[LeftOut.UNREADABLE]:
            raise typer.Exit(JOB_FAILED)


@app.command(epilog=EXIT_CODES)
def stats(index: IndexAt = None, as_json: AsJson = False) -> None:
    """Print what the index holds: rows, the model of its embeddings, its size."""
    with exit_codes():
        found = VectorIndex(Place.of(index, read_settings())).stats()
        typer.echo(json.dumps(asdict(found)) if as_json else in_words(found))


@app.command(epilog=EXIT_CODES)
def optimize(index: IndexAt = None, as_json: AsJson = False) -> None:
    """Bring together what was added in pieces, index it, and drop versions older than a week.

    Worth it after many small additions; large ones do it by themselves.
    """
    with exit_codes():
        table = VectorIndex(Place.of(index, read_settings()))
        table.optimize()
        found = table.stats()
        typer.echo(json.dumps(asdict(found)) if as_json else in_words(found))


def in_words(stats: Stats) -> str:
    """What an index holds, for people."""
    return (
        f"{stats.uri}\n"
        f"  {stats.rows:,} rows, {stats.indexed:,} of them by IVF_SQ, the others compared exactly\n"
        f"  embeddings of {stats.model} at {stats.revision}, {stats.dimensions} numbers each\n"
        f"  {stats.bytes / 1e6:,.1f} MB, version {stats.version}"
    )


def journal_of(place: Place, settings: ProducerSettings) -> Path:
    """Where runs that build an index keep what is done: beside it, or at home for one in a bucket.
    One such run at a time for each."""
    if place.remote:
        name = hashlib.sha256(place.uri.encode()).hexdigest()[:16]
        path = settings.home / f"index-{name}.journal"
    else:
        path = Path(f"{place.uri}.journal")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _say(sentence: str, quiet: bool) -> None:
    if not quiet:
        typer.echo(sentence, err=True)
