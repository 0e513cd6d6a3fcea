"""A command that is a run: carried out, told to people, and ended with an exit code."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from producer.client import Client
from producer.exits import EXIT_CODES, JOB_FAILED, read_settings
from producer.manifest.flags import FlowFlags
from producer.manifest.interrupt import Interrupt
from producer.manifest.progress import Lines, OnTerminal, Progress, failures, summary
from producer.manifest.request import Request
from producer.manifest.rows import SKIPPED
from producer.manifest.session import Session
from producer.settings import ProducerSettings

INTERRUPTED = 130

RUN_EXIT_CODES = EXIT_CODES.rstrip().rstrip(".") + "; 130 interrupted.\n"

ROWS = (
    "code and message (of what failed), attempts, width, height, format, sha256, shard, job_id. A "
    "row of a list that names no image has the code job_invalid, and the others go on.\n\n"
)
"""How a command's help ends that names its columns."""

Ending = Callable[[Session], tuple[str, dict[str, Any]]]
"""What is to be done when all rows are there: returns what there is to tell, in words and as
members of a JSON object."""


def carry_out(
    request: Request, flow: FlowFlags, ending: Ending | None = None, **session_options: Any
) -> None:
    """Run a request to its end, or go on with it. `session_options` are further ones of `Session`.

    Raises:
        typer.Exit: with a documented code, unless all went well.
        Exception: what `exit_codes` makes one sentence of.
    """
    settings = read_settings()
    with (
        Interrupt() as interrupt,
        _opened(request, settings, interrupt, session_options) as session,
    ):
        progress = _progress(session, request, flow.quiet)
        try:
            if not session.ended:
                with Client(settings=settings) as client:
                    session.run(client, progress, interrupt)
        except KeyboardInterrupt:
            progress.close()
            _tell(session, request, flow, interrupted=True)
            raise typer.Exit(INTERRUPTED) from None
        except BaseException:
            progress.close()
            _say_how_to_resume(session)
            raise
        progress.close()
        _tell(session, request, flow, ending=ending)
        if failures(session.counts):
            raise typer.Exit(JOB_FAILED)


def kind_of_progress(quiet: bool, bar: bool = True) -> type[Progress]:
    """What shows how far a run is, on stderr: a bar where that is a terminal, unless it would be in
    the way."""
    return Progress if quiet else OnTerminal if bar and sys.stderr.isatty() else Lines


def _opened(
    request: Request,
    settings: ProducerSettings,
    interrupt: Interrupt,
    options: dict[str, Any],
) -> Session:
    try:
        with interrupt.waiting():  # for lists and tables to be read through
            return Session(request, settings, **options)
    except KeyboardInterrupt:
        typer.echo("captionq: interrupted before anything was sent.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _progress(session: Session, request: Request, quiet: bool) -> Progress:
    # A bar's line would run into rows that come to the same terminal.
    kind = kind_of_progress(quiet, bar=not (request.rows_on_stdout and sys.stdout.isatty()))
    return kind(session.total, session.counts.total(), noun=session.rows.noun)


def _tell(
    session: Session,
    request: Request,
    flow: FlowFlags,
    interrupted: bool = False,
    ending: Ending | None = None,
) -> None:
    here = session.counts.total() - session.past.counts.total()
    words, members = ending(session) if ending else ("", {})
    if not flow.quiet and not flow.as_json:
        noun = session.rows.noun
        typer.echo(summary(session.counts, here, session.seconds, noun) + words, err=True)
    if interrupted:
        in_flight = f"; chunks in flight go on: {session.flying}" if session.flying else ""
        typer.echo(f"captionq: interrupted{in_flight}.", err=True)
        _say_how_to_resume(session)
    if flow.as_json:
        document = _document(session, here, interrupted) | members
        typer.echo(json.dumps(document), err=request.rows_on_stdout)


def _document(session: Session, here: int, interrupted: bool) -> dict[str, Any]:
    counts = dict(session.counts)
    succeeded, skipped = counts.pop("succeeded", 0), counts.pop(SKIPPED, 0)
    return {
        "run": session.past.run,
        session.rows.noun: session.counts.total(),
        "succeeded": succeeded,
        "failed": failures(session.counts),
        "skipped": skipped,
        "errors": counts,
        "seconds": round(session.seconds, 3),
        "per_s": round(here / session.seconds, 1) if session.seconds else None,
        "interrupted": interrupted,
    }


def _say_how_to_resume(session: Session) -> None:
    if not session.kept or session.ended:
        return
    words = [Path(sys.argv[0]).name, *(word for word in sys.argv[1:] if word != "--overwrite")]
    if "--resume" not in words:
        words.append("--resume")
    typer.echo(f"Continue with: {shlex.join(words)}", err=True)
