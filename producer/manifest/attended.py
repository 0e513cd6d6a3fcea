"""A run that somebody looks at: its progress, Ctrl-C, what is told at its end, its exit code."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from producer.client import Client
from producer.exits import JOB_FAILED
from producer.manifest.interrupt import Interrupt
from producer.manifest.outputs import Output
from producer.manifest.progress import Lines, OnTerminal, Progress, failures, summary
from producer.manifest.request import Request
from producer.manifest.rows import SKIPPED
from producer.manifest.service import Service
from producer.manifest.session import Session
from producer.settings import ProducerSettings

INTERRUPTED = 130


class Aside:
    """What a command does beside a run, with the results of its chunks; this one nothing."""

    def service(self, client: Service) -> Service:
        """The client as the run is to see it."""
        return client

    def output(self, rows: Output) -> Output:
        """The output as the run is to see it: rows are done when it has committed."""
        return rows

    def finish(self) -> None:
        """After the last row has been committed."""

    def words(self) -> str:
        """What was done, a sentence for people; or none."""
        return ""

    def document(self) -> dict[str, Any]:
        """What was done, for programs."""
        return {}


def attend(
    request: Request,
    settings: ProducerSettings,
    aside: Aside | None = None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run to the end, and tell what became of it.

    Raises:
        typer.Exit: some images failed, or Ctrl-C came.
        See `Session` and `Run.go`.
    """
    aside = aside or Aside()
    with Interrupt() as interrupt, _opened(request, settings, aside, interrupt) as session:
        progress = _progress(session, request, quiet)
        try:
            if not session.ended:
                with Client(settings=settings) as client:
                    session.run(aside.service(client), progress, interrupt)
                aside.finish()
        except KeyboardInterrupt:
            progress.close()
            _tell(session, request, aside, quiet, as_json, interrupted=True)
            raise typer.Exit(INTERRUPTED) from None
        except BaseException:
            progress.close()
            _say_how_to_resume(session)
            raise
        progress.close()
        _tell(session, request, aside, quiet, as_json)
        if failures(session.counts):
            raise typer.Exit(JOB_FAILED)


def _opened(
    request: Request, settings: ProducerSettings, aside: Aside, interrupt: Interrupt
) -> Session:
    try:
        with interrupt.waiting():  # for lists and tables to be read through
            return Session(request, settings, into=aside.output)
    except KeyboardInterrupt:
        typer.echo("captionq: interrupted before anything was sent.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _progress(session: Session, request: Request, quiet: bool) -> Progress:
    # A bar's line would run into rows that come to the same terminal.
    bar = sys.stderr.isatty() and not (request.rows_on_stdout and sys.stdout.isatty())
    kind = Progress if quiet else OnTerminal if bar else Lines
    return kind(session.total, session.counts.total())


def _tell(
    session: Session,
    request: Request,
    aside: Aside,
    quiet: bool,
    as_json: bool,
    interrupted: bool = False,
) -> None:
    here = session.counts.total() - session.past.counts.total()
    if not quiet and not as_json:
        typer.echo(summary(session.counts, here, session.seconds), err=True)
        if words := aside.words():
            typer.echo(words, err=True)
    if interrupted:
        in_flight = f"; chunks in flight go on: {session.flying}" if session.flying else ""
        typer.echo(f"captionq: interrupted{in_flight}.", err=True)
        _say_how_to_resume(session)
    if as_json:
        document = _document(session, here, interrupted) | aside.document()
        typer.echo(json.dumps(document), err=request.rows_on_stdout)


def _document(session: Session, here: int, interrupted: bool) -> dict[str, Any]:
    counts = dict(session.counts)
    succeeded, skipped = counts.pop("succeeded", 0), counts.pop(SKIPPED, 0)
    return {
        "run": session.past.run,
        "images": session.counts.total(),
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
