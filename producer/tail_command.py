"""`captionq tail`: results as they come, a JSON document a line."""

import json
import os
import re
import socket
import stat
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from producer import embedded
from producer.errors import StoreUnavailable
from producer.exits import EXIT_CODES, exit_codes, read_settings
from producer.manifest.interrupt import Interrupt
from producer.result_stream import CLAIM_AFTER_S, NEW, START, Entry, ResultStream

PAUSE_S = 0.5

EXAMPLES = (
    "Examples:\n\n"
    "captionq tail\n\n"
    "captionq tail --from start -n 100\n\n"
    "captionq tail --group search --consumer indexer-1\n\n" + EXIT_CODES
)


def begin_of(text: str) -> str:
    """Where a stream is read from. Raises: typer.BadParameter."""
    named = {"new": NEW, "start": START}
    if text in named or re.fullmatch(r"\d{1,19}-\d{1,19}", text):
        return named.get(text, text)
    raise typer.BadParameter("new, start, or the 'entry' of a line that was printed")


def tail(
    *,
    group: Annotated[
        str | None,
        typer.Option(
            help="Share the results with the other consumers of this group, which is made when "
            "there is none. Each result is for one of them, and for another when that dies."
        ),
    ] = None,
    consumer: Annotated[
        str | None, typer.Option(help="Who of the group this is; this machine's name otherwise.")
    ] = None,
    begin: Annotated[
        str,
        typer.Option(
            "--from",
            parser=begin_of,
            metavar="new|start|ENTRY",
            help="new: what comes from now on; start: from the oldest that is kept; behind an "
            "entry. Of a group: where it begins when it is made.",
        ),
    ] = "new",
    claim_after_s: Annotated[
        float,
        typer.Option(min=0.1, help="When a result of another consumer counts as left by it."),
    ] = CLAIM_AFTER_S,
    limit: Annotated[
        int | None, typer.Option("-n", min=1, help="End after so many results.")
    ] = None,
) -> None:
    """Print results of all jobs as they end: a JSON document a line, until Ctrl-C.

    Each has entry, job_id, task, state, owner and result. Workers keep a
    stream of them where CAPTIONQ_RESULT_STREAM is set (docs/callbacks.md).

    With --group, a result is acknowledged once its line is written: none is
    lost, and after a crash some come twice. When Redis is away, it is waited
    for.
    """
    with exit_codes():
        settings = read_settings()
        if consumer and not group:
            raise ValueError("--consumer is of a --group.")
        broker_url = settings.broker_url or embedded.ensure(settings.home)
        stream = ResultStream(
            settings.results_url_beside(broker_url),
            begin=begin,
            group=group,
            consumer=consumer or socket.gethostname(),
            claim_after_s=claim_after_s,
        )
        with closing(stream), Interrupt() as interrupt:
            if not stream.exists():
                _say("no result is in the stream: is CAPTIONQ_RESULT_STREAM set for workers?")
            try:
                _begin_a_line()
                _follow(stream, interrupt, limit)
            except KeyboardInterrupt:
                return


def _follow(stream: ResultStream, interrupt: Interrupt, limit: int | None) -> None:
    """Print results, and acknowledge them, until there were `limit` of them."""
    printed, away = 0, False
    while limit is None or printed < limit:
        try:
            with interrupt.waiting():
                found = stream.read()
            found = found if limit is None else found[: limit - printed]
            sys.stdout.write("".join(map(_line, found)))  # at once: a crash hardly cuts a line off
            sys.stdout.flush()
            printed += len(found)
            stream.acknowledge(found)
            away = False
        except StoreUnavailable as exc:
            if not away:
                _say(f"{exc}; waiting for it")
            away = True
            with interrupt.waiting():
                time.sleep(PAUSE_S)


def _begin_a_line() -> None:
    """End the last line of the file that is written to, if a process that was killed has cut it
    off: what comes next would be lost in it."""
    with suppress(OSError, ValueError):  # no file, or one that cannot be read
        about = os.fstat(out := sys.stdout.fileno())
        if not stat.S_ISREG(about.st_mode) or not about.st_size:
            return
        with Path(f"/dev/fd/{out}").open("rb") as written:
            written.seek(-1, os.SEEK_END)
            if written.read() != b"\n":
                sys.stdout.write("\n")


def _line(one: Entry) -> str:
    return json.dumps({**one._asdict(), "result": json.loads(one.result)}) + "\n"


def _say(words: str) -> None:
    typer.echo(f"captionq tail: {words}", err=True)
