"""`captionq rank`: the images that fit a text best, of any number."""

import json
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from producer.client import Client
from producer.errors import JobFailed
from producer.exits import EXIT_CODES, JOB_FAILED, exit_codes, read_settings
from producer.groups import with_groups
from producer.manifest.command import INTERRUPTED, kind_of_progress
from producer.manifest.flags import FlowFlags, Sources
from producer.manifest.interrupt import Interrupt
from producer.manifest.prepare import Preparer
from producer.manifest.progress import failures, summary
from producer.manifest.sources import Sources as References
from producer.manifest.sources import total_of
from producer.manifest.tables import Columns
from producer.ranking import Ranker, Ranking
from producer.upload import uploader

RANK_EXAMPLES = (
    "Examples:\n\n"
    "captionq rank 'a red bicycle' photos/ -k 10\n\n"
    "captionq rank 'a person at a desk' s3://photos/2026/ -k 64 --json | jq -r '.best[].image'\n\n"
    "captionq rank 'two dogs' 'laion/*.parquet' --column URL --in-flight 256\n\n"
    "A place in the table has: the score, itm_logit + itc_cosine; itm, the probability that image "
    "and text belong together; itc, the cosine that the shortlist was made by; the image. To ask "
    "many questions of the same images, build an index: captionq index --help.\n\n"
    + EXIT_CODES.rstrip().rstrip(".")
    + "; 130 interrupted.\n"
)


@with_groups
def rank(
    *,
    text: Annotated[str, typer.Argument(help="What the images are ranked by.", show_default=False)],
    sources: Sources,
    k: Annotated[
        int,
        typer.Option("-k", min=1, max=4_096, help="Images of the shortlist, all of them shown."),
    ] = 32,
    flow: FlowFlags,
) -> None:
    """Print the images that fit a text best: a shortlist of k by ITC, ranked by ITM and ITC.

    All images are embedded, as a stream: a million need no more memory than a hundred. Then those
    with the k highest cosines are weighed by the matching head. Images that fail are counted.
    """
    with exit_codes():
        settings = read_settings()
        references = References(sources, Columns(flow.column), flow.base, settings.s3_endpoint_url)
        preparer = Preparer(uploader(settings))
        total = total_of(references.identities())
        progress = kind_of_progress(flow.quiet)(total)
        began_s = time.monotonic()
        try:
            with Interrupt() as interrupt, Client(settings=settings) as client:
                ranking = Ranker(
                    client,
                    k,
                    seen=flow.seen(),
                    size=flow.chunk,
                    in_flight=flow.in_flight,
                    patience_s=flow.patience_s,
                    preparer=preparer,
                    progress=progress,
                    interrupt=interrupt,
                ).rank(text, references)
        except KeyboardInterrupt:
            typer.echo("captionq: interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except JobFailed as exc:
            typer.echo(f"captionq: the text could not be embedded: {exc}", err=True)
            raise typer.Exit(JOB_FAILED) from None
        finally:
            progress.close()
            preparer.close()
        _tell(ranking, time.monotonic() - began_s, flow)
    if failures(ranking.counts):
        raise typer.Exit(JOB_FAILED)


def _tell(ranking: Ranking, seconds: float, flow: FlowFlags) -> None:
    if flow.as_json:
        typer.echo(json.dumps(_document(ranking, seconds), ensure_ascii=False))
        return
    if ranking.best:
        typer.echo(f"{'':>5}  {'score':>8}  {'itm':>6}  {'itc':>6}  image")
    for place, one in enumerate(ranking.best, start=1):
        numbers = f"{one.score:>8.3f}  {one.itm_probability:>6.3f}  {one.itc_cosine:>6.3f}"
        typer.echo(f"{place:>5}  {numbers}  {one.image}")
    if not flow.quiet:
        typer.echo(summary(ranking.counts, ranking.counts.total(), seconds), err=True)


def _document(ranking: Ranking, seconds: float) -> dict[str, Any]:
    errors = dict(ranking.counts)
    return {
        "text": ranking.text,
        "model": ranking.model,
        "revision": ranking.revision,
        "images": ranking.counts.total(),
        "succeeded": errors.pop("succeeded", 0),
        "failed": failures(ranking.counts),
        "errors": errors,
        "seconds": round(seconds, 3),
        "best": [asdict(one) for one in ranking.best],
    }
