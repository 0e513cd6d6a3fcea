"""Lists and tables of references as text: a reference a line, CSV, JSONL. Read as streams.

A row that cannot be read is a `Reference` with a fault, and the next one is read. What cannot be
a table of references at all is a ValueError. Lines are bounded, so memory is.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from producer.manifest.reference import Reference

MAX_LINE_BYTES = 1_048_576
"""A longer line is a bad row, whatever it holds."""

What = Literal["reference", "caption", "language"]

GUESSES: dict[What, tuple[str, ...]] = {
    "reference": ("image", "url", "image_url", "uri", "path", "file_name", "filename", "file"),
    "caption": ("caption", "text", "title", "description", "alt_text", "alt"),
    "language": (),
}
"""Names of the columns with the references, and with the captions of pairs, tried in this order
when none is given."""

OPTIONS: dict[What, str] = {
    "reference": "--column",
    "caption": "--caption-column",
    "language": "--language-column",
}

TOO_LONG = f"The line is longer than {MAX_LINE_BYTES} bytes."
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read; None for one that has a usual name.

    `paired` rows have a caption beside the reference. `language` is read where it is named.
    """

    image: str | None = None
    caption: str | None = None
    paired: bool = False
    language: str | None = None

    @property
    def kinds(self) -> tuple[What, ...]:
        """What is read, in this order."""
        captions: tuple[What, ...] = ("caption",) if self.paired else ()
        return ("reference", *captions, *(("language",) if self.language else ()))

    def reference(self, position: str, said: Sequence[str], folder: Path) -> Reference:
        """What a row says, of these kinds; an empty language is none."""
        row = {kind: one.strip() for kind, one in zip(self.kinds, said, strict=True)}
        return Reference(
            position,
            row["reference"],
            folder,
            caption=row.get("caption"),
            language=row.get("language") or None,
        )

    def chosen(self, name: str, names: Sequence[str], sparse: bool = False) -> tuple[str, ...]:
        """Those to read, of those that a table has, in the order of `kinds`.

        Args:
            sparse: other rows may have other columns, so that one asked for need not be there.

        Raises:
            ValueError: see `chosen_column`.
        """
        named = {"reference": self.image, "caption": self.caption, "language": self.language}
        asked = [(named[what], what) for what in self.kinds]
        return tuple(
            column
            if sparse and column
            else chosen_column(name, names, column, GUESSES[what], f"{what}s", OPTIONS[what])
            for column, what in asked
        )


def lines(file: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Each line with its number, from 1 on, its end included; None for one that is too long."""
    number = 0
    while line := file.readline(max_bytes + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
            if not line:  # and nothing else
                return
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := file.readline(max_bytes)) and not rest.endswith(b"\n"):
            pass
        yield number, None


def read_list(file: BinaryIO, name: str, folder: Path) -> Iterator[Reference]:
    """A reference a line; blank lines and those that begin with `#` say nothing."""
    for number, line in lines(file):
        position = f"{name}:{number}"
        if line is None:
            yield Reference(position, "", folder, TOO_LONG)
        elif (given := _text(line).strip()) and not given.startswith("#"):
            yield Reference(position, given, folder)


def read_csv(
    file: BinaryIO, name: str, folder: Path, columns: Columns, delimiter: str | None = None
) -> Iterator[Reference]:
    """The references of one column of a CSV file (RFC 4180) whose first line names the columns.

    Unless a delimiter is given, it is the one of `,;\\t|` that comes most in that line.

    Raises:
        ValueError: it has no such column, or no line at all, or a first line that is not CSV.
    """
    rows = _CsvLines(file)
    header = rows.header(name)
    if delimiter is None:
        delimiter = max(",;\t|", key=header.count)
    try:
        names = [field.strip() for field in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error as exc:
        raise ValueError(f"{name} is no CSV file: its first line is none ({exc}).") from exc
    chosen = columns.chosen(name, names)
    places = [names.index(one) for one in chosen]
    reader = csv.reader(rows, delimiter=delimiter)
    while True:
        first_line = rows.number + 1
        fault = None
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            row, fault = [], f"The row is not CSV: {exc}."
        if rows.cut_short():
            row, fault = [], TOO_LONG
        position = f"{name}:{first_line}"
        if fault is None and len(row) > max(places):
            yield columns.reference(position, [row[place] for place in places], folder)
        elif fault is not None or row:  # else a blank line
            missing = _first(chosen, [place < len(row) for place in places])
            yield Reference(position, "", folder, fault or f"The row has no column {missing}.")


def read_jsonl(file: BinaryIO, name: str, folder: Path, columns: Columns) -> Iterator[Reference]:
    """The references of one field of the objects of a JSON Lines file; blank lines say nothing.

    Raises:
        ValueError: no field is named, and the first object has none of the usual names.
    """
    chosen: tuple[str, ...] = ()
    for number, line in lines(file):
        position = f"{name}:{number}"
        if line is None:
            yield Reference(position, "", folder, TOO_LONG)
        elif line.strip():
            row = _object(line)
            if row is None:
                yield Reference(position, "", folder, "The line is not a JSON object.")
                continue
            chosen = chosen or columns.chosen(name, list(row), sparse=True)
            given = [row.get(one) for one in chosen]
            if columns.language and given[-1] is None:
                given[-1] = ""
            texts = [one for one in given if isinstance(one, str)]
            if len(texts) == len(given):
                yield columns.reference(position, texts, folder)
            else:
                missing = _first(chosen, [isinstance(one, str) for one in given])
                yield Reference(position, "", folder, f"The object has no text in {missing}.")


def _first(names: Sequence[str], there: Sequence[bool]) -> str:
    return next(name for name, is_there in zip(names, there, strict=True) if not is_there)


def chosen_column(
    name: str,
    names: Sequence[str],
    column: str | None,
    usual: Sequence[str],
    what: str,
    flag: str,
) -> str:
    """The column to read, of those there are: the one asked for, or one that is `usual`.

    `what` it holds and the `flag` that names it are words for the error.

    Raises:
        ValueError: naming those there are.
    """
    there = ", ".join(shortened(one) for one in names[:20]) or "none"
    if column is not None:
        if column not in names:
            raise ValueError(f"{name} has no column {column!r}. Its columns: {there}.")
        return column
    by_lower_case = {one.lower(): one for one in reversed(names)}
    for guess in usual:
        if guess in by_lower_case:
            return by_lower_case[guess]
    raise ValueError(
        f"{name} has no column named {' or '.join(usual[:2])}: say with {flag} which of its "
        f"columns holds the {what}: {there}."
    )


def shortened(text: str, most: int = 60) -> str:
    """The beginning of a text that may be long."""
    return text if len(text) <= most else f"{text[:most]}..."


class _CsvLines:
    """Lines for a csv.reader, which counts none itself when they are not read from its start."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = lines(file)
        self._too_long = False
        self.number = 0

    def header(self, name: str) -> str:
        for number, line in self._lines:
            self.number = number
            if line is None:
                raise ValueError(f"{name} is no CSV file: its first line has no end.")
            if line.strip():
                return _text(line)
        raise ValueError(f"{name} is empty: its first line has to name the columns.")

    def cut_short(self) -> bool:
        """Whether a line since the last call was too long."""
        too_long, self._too_long = self._too_long, False
        return too_long

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.number = number
            self._too_long = self._too_long or line is None
            yield "\n" if line is None else _text(line)


def _object(line: bytes) -> Mapping[str, object] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _text(line: bytes) -> str:
    """A line as text, in which bytes that are not UTF-8 stay what they are (PEP 383): file names
    may hold them, and in a URI they are a fault of the row alone."""
    return line.decode("utf-8", "surrogateescape")


def count_lines(blocks: Iterable[bytes]) -> int:
    """How many lines these bytes have."""
    count, last = 0, b"\n"
    for block in blocks:
        count += block.count(b"\n")
        last = block[-1:] or last
    return count + (last != b"\n")
