"""A run from its beginning, or from where an earlier process left it, to its end."""

import contextlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from producer.manifest.append import AppendFile
from producer.manifest.beside import Beside
from producer.manifest.chunks import in_chunks
from producer.manifest.counting import Counting
from producer.manifest.feed import Feed
from producer.manifest.interrupt import Interrupt
from producer.manifest.journal import CannotResume, Journal, Past
from producer.manifest.kinds import rows_of
from producer.manifest.outputs import (
    Failures,
    Output,
    Stream,
    TextFile,
    csv_head,
    csv_lines,
    json_lines,
)
from producer.manifest.parts import Parts
from producer.manifest.prepare import Preparer, remaining
from producer.manifest.progress import Progress
from producer.manifest.request import Request, format_of
from producer.manifest.rows import Holds, Rows
from producer.manifest.run import Run
from producer.manifest.service import NoNotes, Service
from producer.manifest.sources import Identity, Sources, total_of
from producer.settings import ProducerSettings
from producer.upload import uploader

RUN_BYTES = 8


class Session:
    """An open run. Nothing is sent before `run`.

    Args:
        rows: in place of those of the request's chunk.
        into: makes, of the output that the request says, the one that rows go into.

    Raises:
        ValueError: the sources, the output or the journal are not what the request says.
        OSError: a file cannot be read or written, or a library is not installed.
    """

    def __init__(
        self,
        request: Request,
        settings: ProducerSettings,
        open_file: Callable[[Path], AppendFile] = AppendFile,
        rows: Rows | None = None,
        into: Callable[[Output], Output] = lambda output: output,
    ) -> None:
        request.check()
        self._into = into
        self._open_file = open_file
        self._request = request
        self._settings = settings
        self.rows = rows or rows_of(request.chunk)
        self._sources = Sources(
            request.sources,
            request.columns,
            request.base,
            settings.s3_endpoint_url,
            written=filter(None, (request.output, request.journal_path)),
        )
        identities = self._sources.identities()
        self.total = total_of(identities)
        with contextlib.ExitStack() as opened:
            self._journal = self._open_journal(opened, identities)
            self.past = self._journal.past if self._journal else Past(_new_id())
            self._opened = opened.pop_all()
        self.counts = Counter(self.past.counts)
        self.flying = 0
        self.seconds = 0.0

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.past.ended

    @property
    def kept(self) -> bool:
        """Whether the run can be resumed."""
        return self._journal is not None

    def run(self, service: Service, progress: Progress, interrupt: Interrupt) -> None:
        """Run to the end.

        Raises:
            See `Run.go`.
        """
        began_s = time.monotonic()
        request = self._request
        with contextlib.ExitStack() as opened:
            output = self._output(progress)
            opened.callback(output.close)
            output.cut(self.past.end)
            preparer = Preparer(uploader(self._settings), request.beside, request.skip_existing)
            opened.callback(preparer.close)
            chunks = in_chunks(self._sources, request.size)
            feed = Feed(remaining(chunks, self.past, preparer))
            opened.callback(feed.close)
            if self.total is None and self._sources.countable:
                opened.callback(Counting(self._sources, progress.expect).stop)
            run = Run(
                service,
                feed,
                output,
                self._journal or NoNotes(),
                self.past,
                self.rows,
                in_flight=request.in_flight,
                ordered=request.ordered,
                progress=progress,
                interrupt=interrupt,
                patience_s=request.patience_s,
            )
            try:
                run.go()
            finally:
                self.counts, self.flying = run.counts, run.flying
                self.seconds = time.monotonic() - began_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _open_journal(
        self, opened: contextlib.ExitStack, identities: list[Identity]
    ) -> Journal | None:
        request, path = self._request, self._request.journal_path
        if path is None:
            return None
        journal = opened.enter_context(Journal(path, self._open_file(path)))
        prints = [one.fingerprint for one in identities]
        if request.resume and journal.begun:
            _same_plan(request.plan(), journal.past.plan)
            _same_sources(request.sources, prints, journal.past.sources)
            self._find_output(journal.past)
            return journal
        if not request.overwrite:
            self._refuse_to_overwrite(journal)
        journal.begin(_new_id(), request.plan(), prints)
        return journal

    def _refuse_to_overwrite(self, journal: Journal) -> None:
        output = self._request.output
        there = output is not None and holds_something(output)
        if there and self._request.resume:
            raise CannotResume(f"{output} has no journal beside it: there is no run to resume.")
        if there or (journal.past.sent and not journal.past.ended):
            what = output if there else "An interrupted run"
            raise ValueError(f"{what} is there: --resume goes on with it, --overwrite starts anew.")

    def _find_output(self, past: Past) -> None:
        output = self._request.output
        if past.end and output is not None and not output.exists():
            raise CannotResume(
                f"{output} is not there any more, and its journal is: start anew with --overwrite."
            )

    def _output(self, progress: Progress) -> Output:
        request = self._request
        output: Output
        if request.output is None and not request.rows_on_stdout:
            output = Failures(progress.say)
        else:
            output = opened_output(request.output, self.rows.columns, self._open_file)
        return self._into(Beside(output) if request.beside else output)


def opened_output(
    path: Path | None,
    columns: Mapping[str, Holds],
    open_file: Callable[[Path], AppendFile] = AppendFile,
) -> Output:
    """Where rows of these columns go: a file by its suffix, or standard output.

    Raises:
        ValueError: the suffix says no format.
        OSError: it cannot be opened.
    """
    if path is None:
        return Stream(sys.stdout.buffer)
    kind = format_of(path)
    if kind == "parquet":
        return Parts(path, columns)
    if kind == "csv":
        return TextFile(path, csv_lines, csv_head(columns), open_file(path))
    return TextFile(path, json_lines, file=open_file(path))


def _new_id() -> str:
    return secrets.token_hex(RUN_BYTES)


def holds_something(output: Path) -> bool:
    """Whether there is an output that has anything in it."""
    if output.is_dir():
        return next(output.iterdir(), None) is not None
    return output.exists() and output.stat().st_size > 0


def _same_plan(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    differing = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    if differing:
        raise CannotResume(
            f"The run began with other options ({', '.join(differing)}): resume it with the same, "
            "or start anew with --overwrite."
        )


def _same_sources(words: tuple[str, ...], now: list[str | None], then: list[str | None]) -> None:
    for word, one, other in zip(words, now, then, strict=True):
        if one != other:
            raise CannotResume(
                f"{word} has changed since the run began: which of its images are done is not "
                "known any more. Start anew with --overwrite."
            )
