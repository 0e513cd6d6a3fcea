"""Where rows go: JSON Lines, CSV, standard output.

All outputs take rows, see them to the disk on `commit`, and say by a mark how far they then reach;
`cut` takes them back to a mark. Text grows in one file, whose mark is its size in bytes.
"""

import csv
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Protocol

from producer.manifest.append import AppendFile
from producer.manifest.journal import CannotResume
from producer.manifest.rows import Row

COMMIT_S = 0.2
"""How long rows may wait for others to be seen to the disk together, in seconds."""


class Output(Protocol):
    """Takes rows. Every method raises OSError when it cannot write."""

    def cut(self, mark: int) -> None:
        """Drop what lies behind a mark; 0 is before everything.

        Raises:
            CannotResume: it does not reach that far.
        """

    def write(self, rows: Sequence[Row]) -> None:
        """Take rows, of whole chunks."""

    @property
    def due(self) -> bool:
        """Whether it is time to commit."""

    def commit(self) -> int:
        """See all rows to the disk; returns the mark."""

    def close(self) -> None:
        """Release the files; what is not committed is lost."""


class TextFile:
    """Rows as text in one file.

    Args:
        text: rows as lines that end.
        head: the first line, if any.
    """

    def __init__(
        self,
        path: Path,
        text: Callable[[Sequence[Row]], str],
        head: str = "",
        file: AppendFile | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._text = text
        self._head = head
        self._file = file or AppendFile(path)
        self._clock_s = clock_s
        self._committed_s = clock_s()
        self._waiting = False

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""
        if self._file.size < mark:
            raise CannotResume(
                f"{self._path} is shorter than when the run was interrupted: it has been changed."
            )
        self._file.cut(mark)
        if mark == 0 and self._head:
            self._file.write(self._head.encode())

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`."""
        self._file.write(self._text(rows).encode())
        self._waiting = True

    @property
    def due(self) -> bool:
        """See `Output.due`."""
        return self._waiting and self._clock_s() >= self._committed_s + COMMIT_S

    def commit(self) -> int:
        """See `Output.commit`."""
        self._file.sync()
        self._committed_s, self._waiting = self._clock_s(), False
        return self._file.size

    def close(self) -> None:
        """See `Output.close`."""
        self._file.close()


class Stream:
    """Rows as JSON Lines to a pipe or a terminal; what is written is not taken back."""

    due = True

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`."""
        self._file.write(json_lines(rows).encode())
        self._file.flush()

    def commit(self) -> int:
        """See `Output.commit`."""
        return 0

    def close(self) -> None:
        """See `Output.close`."""


class Failures:
    """Tells of what failed alone, for rows whose captions have another place."""

    due = True

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`."""
        for row in rows:
            if row["code"] is not None:
                self._say(f"{row['image'] or row['source']}: {row['code']}: {row['message']}")

    def commit(self) -> int:
        """See `Output.commit`."""
        return 0

    def close(self) -> None:
        """See `Output.close`."""


def json_lines(rows: Sequence[Row]) -> str:
    """A JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_lines(rows: Sequence[Row]) -> str:
    """Rows of CSV (RFC 4180, with ends of lines as Unix has them), in the order of their columns;
    lists are JSON."""
    # It quotes the characters of its own end of line alone, and returns what `write` does.
    writer: Any = csv.writer(SimpleNamespace(write=str), lineterminator="\r\n")
    lines = (
        writer.writerow(
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell
            for cell in row.values()
        )
        for row in rows
    )
    return "".join(f"{line.removesuffix(writer.dialect.lineterminator)}\n" for line in lines)


def csv_head(columns: Iterable[str]) -> str:
    """The line that names the columns."""
    return ",".join(columns) + "\n"
