"""`captionq search`: images by words, or by another image."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from producer.client import Client
from producer.contract import EmbedJob, JobFailed
from producer.exits import EXIT_CODES, JOB_FAILED, exit_codes, read_settings
from producer.flags import Adapter, AsJson, ModelId
from producer.index.filters import where
from producer.index.place import Place
from producer.index.search import Found, embedded, reranked
from producer.index.table import NoIndex, VectorIndex
from producer.upload import uris

IndexAt = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="PATH",
        help="Folder of the index, or s3://bucket/prefix/; by default CAPTIONQ_INDEX, or "
        "~/.captionq/index.",
    ),
]

EXAMPLES = (
    "Examples:\n\n"
    "captionq search 'a small red circle'\n\n"
    "captionq search 'a dog on a beach' -k 20 --rerank\n\n"
    "captionq search --image cat.jpg --source s3://photos/2026/\n\n"
    "captionq search 'a street at night' --caption-contains bus --json | jq -r .image_ref\n\n"
    "captionq search 'a dog' --index s3://team/index/\n\n" + EXIT_CODES
)


def search(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What the images are to show.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_URI",
            help="In place of words: images like this one. A file travels as submit's do.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1_024, help="How many images.")] = 10,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank",
            help="Have workers weigh the candidates by ITM: they fetch them again.",
        ),
    ] = False,
    candidates: Annotated[
        int,
        typer.Option(min=1, max=1_024, help="With --rerank: how many of the nearest are weighed."),
    ] = 64,
    caption_contains: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS",
            help="Only images whose caption has these words in it, whatever their case; may be "
            "repeated.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            help="Only images whose reference begins so: s3://photos/2026/, https://..., or a "
            "folder here.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every row, not by IVF_SQ.")
    ] = False,
    index: IndexAt = None,
    model: ModelId = None,
    adapter: Adapter = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="Longest wait for workers.")
    ] = 60,
    as_json: AsJson = False,
) -> None:
    """Find images of an index by words, or by another image.

    A worker with a matching model (CAPTIONQ_MATCH_MODEL) embeds the query; the nearest rows are
    found here. `captionq index build` makes the index.
    """
    with exit_codes():
        if (text is None) == (image is None):
            raise ValueError("Say what to search for: words, or --image, one of the two.")
        if rerank and text is None:
            raise ValueError("--rerank weighs images against words: it goes with TEXT.")
        settings = read_settings()
        table = VectorIndex(Place.of(index, settings))
        if table.space() is None:
            raise NoIndex(table.place.uri)
        query = EmbedJob(
            image=uris([image], settings)[0] if image is not None else None,
            texts=(text,) if text is not None else None,
            encoding="float32",
            model=model,
            adapter=adapter,
        )
        with Client(settings=settings) as client, _job_failures():
            embedding = embedded(client, query, timeout_s)
            most = max(k, candidates) if rerank else k
            chosen = where(caption_contains or (), source)
            hits = table.nearest(embedding, most, chosen, exact)
            if rerank and text is not None and hits:
                found = reranked(client, hits, query, embedding, timeout_s)[:k]
            else:
                found = [Found(hit) for hit in hits]
        show(found, as_json)


def show(found: list[Found], as_json: bool) -> None:
    """Print a line of JSON for each, or a table."""
    if as_json:
        for rank, one in enumerate(found, 1):
            typer.echo(json.dumps(one.document(rank), ensure_ascii=False))
        return
    if not found:
        typer.echo("Nothing passes the filters, or the index is empty.", err=True)
        return
    weighed = any(one.ranked or one.code for one in found)
    table = Table("", "cosine", *(["match"] if weighed else []), "caption", "image", box=None)
    for column in table.columns:
        column.overflow = "fold"
    for rank, one in enumerate(found, 1):
        row = [str(rank), f"{one.hit.itc_cosine:.3f}"]
        if weighed:
            row.append(f"{one.ranked.itm_probability:.3f}" if one.ranked else str(one.code))
        row += [one.hit.caption or "", one.hit.image_ref]
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def printable(text: str) -> str:
    r"""Text without what a terminal would obey.

    >>> printable("a\x1b[2J dog")
    'a\ufffd[2J dog'
    """
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


@contextmanager
def _job_failures() -> Iterator[None]:
    """End with the exit code of a job that ended without a result."""
    try:
        yield
    except JobFailed as exc:
        typer.echo(f"captionq: {exc}", err=True)
        raise typer.Exit(JOB_FAILED) from exc
