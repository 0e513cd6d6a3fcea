"""What jobs and results look like in a terminal."""

import json
import sys
from collections.abc import Iterable, Iterator

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from producer.contract import JobResult
from producer.store import Record
from producer.words import outcome


def show(document: BaseModel | dict[str, str], words: str, as_json: bool) -> None:
    """Print one line on stdout: the document as JSON, or else the words."""
    if as_json:
        words = (
            document.model_dump_json() if isinstance(document, BaseModel) else json.dumps(document)
        )
    print(words, flush=True)


def standing(record: Record) -> str:
    """Where a job stands, in words."""
    if record.result is not None:
        return f"{record.state}: {outcome(record.result)}"
    words = f"{record.state} since {record.started_at or record.created_at:%Y-%m-%d %H:%M:%S %Z}"
    return f"{words} on {record.worker}, attempt {record.attempt}" if record.worker else words


def with_progress(results: Iterable[JobResult], total: int) -> Iterator[JobResult]:
    """The results, counted by a bar on stderr when that is a terminal."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # else what is piped would go to the bar's console
        transient=True,
    )
    with progress:
        yield from progress.track(results, total=total, description="Captioning")
