"""`captionq-worker packs`: the language and domain packs that a worker has."""

import json
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.clear_errors import checked_settings, clear_errors
from worker.errors import Fault
from worker.flags import AsJson
from worker.packs.found import Found, Served, why_not
from worker.packs.places import places_of
from worker.settings import WorkerSettings, model_path

UNLISTED = 1
"""Exit status when a place could not be listed."""


def packs(as_json: AsJson = False) -> None:
    """List the packs that workers find by CAPTIONQ_PACKS, and whether the models can use them.

    A job asks for one by its language ({"language": "de"}) or its name ({"adapter": "medical-v2"}).
    Cards alone are read; of the bundled checkpoint, its packs are listed without any setting. A
    place that cannot be listed is told on stderr, and the exit status is then 1.

    Example: CAPTIONQ_PACKS=packs/,s3://team/packs/ captionq-worker packs
    """
    settings = checked_settings()
    unlisted = False
    rows: list[dict[str, Any]] = []
    with clear_errors():
        served = _served(settings)
        for place in places_of(settings, settings.models.values()):
            try:
                rows += [_row(one, served) for one in place.listed()]
            except (Fault, OSError) as exc:
                typer.echo(f"captionq-worker: {place.where} cannot be listed: {exc}", err=True)
                unlisted = True
            finally:
                place.close()
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    else:
        _print(rows)
    if unlisted:
        raise typer.Exit(UNLISTED)


def _served(settings: WorkerSettings) -> dict[str, Served]:
    """The checkpoints of the tasks, their weights not loaded."""
    from worker.blip.hub import resolve
    from worker.blip.weights import Weights

    def of(model: str, revision: str | None) -> Served:
        source = resolve(model_path(model), revision)
        weights = Weights(source.folder)
        known_as = source.revision or weights.digest()
        return Served(source.model_id, known_as, lambda: weights.digest_of(""))

    return {task: of(name, settings.revisions[task]) for task, name in settings.models.items()}


def _row(found: Found, served: dict[str, Served]) -> dict[str, Any]:
    card = found.card
    why = found.why_not or (why_not(card, served) if card else None)
    return {
        "name": found.name,
        "language": found.language,
        "task": found.task,
        "base": card and f"{card.base.model_id}@{card.base.revision}",
        "usable": why is None,
        "why_not": why,
        "scores": dict(card.scores) if card else {},
        "bytes": found.bytes,
        "where": found.where,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("There are no packs: CAPTIONQ_PACKS names folders, or s3://bucket/prefix/.")
        return
    table = Table(title="packs")
    for name in ("name", "language", "task", "base", "usable", "scores"):
        table.add_column(name, overflow="fold")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for row in rows:
        scores = ", ".join(f"{name} {value:.3g}" for name, value in row["scores"].items())
        cells = [row["name"], row["language"] or "", row["task"] or "", row["base"] or ""]
        cells += ["yes" if row["usable"] else f"no: {row['why_not']}", scores]
        cells += [f"{row['bytes'] / 1e6:.1f}", row["where"]]
        table.add_row(*map(escape, cells))
    Console().print(table)
