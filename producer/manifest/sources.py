"""What the words on a command line stand for: streams of references."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from producer.manifest.bucket import Bucket, names_many
from producer.manifest.folders import images_below, is_image, is_pattern, matches
from producer.manifest.parquet import ParquetTable
from producer.manifest.reference import Reference, spelled
from producer.manifest.tables import Columns, count_lines, read_csv, read_jsonl, read_list
from producer.references import SCHEMES

LISTS = frozenset({".txt", ".lst", ".list"})
COMMAS = frozenset({".csv", ".tsv"})
OBJECTS = frozenset({".jsonl", ".ndjson"})
PARQUET = frozenset({".parquet", ".pq"})
TABLES = LISTS | COMMAS | OBJECTS | PARQUET

STDIN = "-"
BLOCK_BYTES = 1_048_576
CHECKED_ROWS = 1_000
"""So many rows of a table are looked at beforehand, at most, for one that is good."""


@dataclass(frozen=True)
class Identity:
    """What of a source is known before it is read, cheaply.

    `fingerprint` tells its content from another, None where only reading tells: folders, buckets,
    standard input. `total` is about how many references it has, None where that is unknown.
    """

    fingerprint: str | None = None
    total: int | None = None


class Sources:
    """The references of some words, one after the other, as a stream: memory is constant but for
    the names of one folder at a time.

    A word is a URI; `s3://bucket/prefix/`; `-` for a list on standard input; a file (a list, a
    table or an image, by its suffix); a folder; or a pattern for files and folders.

    Args:
        words: at least one.
        columns: that tables have their references in, and captions if these are asked for: then
            all words are tables.
        base: what relative paths in lists and tables are relative to; by default the folder of the
            list, and for standard input the current one.
        s3_endpoint_url: an S3 endpoint other than AWS.
        stdin: what `-` reads.
        written: files and folders that are written meanwhile: patterns pass them over.

    Raises:
        ValueError: a word names nothing, or what is written, or a table has no such column.
        OSError: what a word needs is not installed, or a file cannot be read.
    """

    def __init__(
        self,
        words: Iterable[str],
        columns: Columns | None = None,
        base: Path | None = None,
        s3_endpoint_url: str | None = None,
        stdin: BinaryIO | None = None,
        written: Iterable[Path] = (),
    ) -> None:
        self.words = tuple(words)
        self._columns = columns or Columns()
        self._base = base
        self._s3_endpoint_url = s3_endpoint_url
        self._stdin = stdin
        self._written = frozenset(map(os.path.abspath, written))
        if self.words.count(STDIN) > 1:
            raise ValueError("Standard input (-) can be read once.")
        for word in self.words:
            if self._columns.paired:
                _check_table(word)
            self._check(word)

    def __iter__(self) -> Iterator[Reference]:
        for word in self.words:
            yield from self._read(word)

    @property
    def countable(self) -> bool:
        """Whether they can be read once more to be counted, at no cost elsewhere."""
        return not any(word == STDIN or names_many(word) for word in self.words)

    def identities(self) -> list[Identity]:
        """The identity of each word, for which lists and text tables are read through once."""
        return [self._identity(word) for word in self.words]

    def _check(self, word: str) -> None:
        if word == STDIN:
            return
        if is_uri(word):
            if names_many(word):
                Bucket(word, self._s3_endpoint_url)
            return
        path = Path(word).expanduser()
        if self._is_written(path):
            raise ValueError(f"{word} is where this run writes: it cannot be a source as well.")
        if word and path.exists():  # an empty word would be the current folder
            self._check_file(path)
            return
        matched = self._matches(word) if is_pattern(word) else iter(())
        one = next(matched, None)
        if one is None:
            raise ValueError(
                f"There is no file, folder or match {word!r}; a URI begins with https://, s3:// ..."
            )
        if not is_image(word):  # else there are no tables among them
            self._check_file(one)
            for another in matched:
                self._check_file(another)

    def _check_file(self, path: Path) -> None:
        """Look at a table before any job is sent, so that its faults end nothing halfway."""
        if path.suffix.lower() in TABLES - LISTS and path.is_file():
            rows = islice(self._read_file(path, str(path)), CHECKED_ROWS)
            next((row for row in rows if row.fault is None), None)

    def _matches(self, pattern: str) -> Iterator[Path]:
        return (path for path in matches(pattern) if not self._is_written(path))

    def _is_written(self, path: Path) -> bool:
        if not self._written:
            return False
        place = Path(os.path.abspath(path))  # noqa: PTH100 - without "..", and no link followed
        return not self._written.isdisjoint(map(str, (place, *place.parents)))

    def _read(self, word: str) -> Iterator[Reference]:
        if word == STDIN:
            # Not sys.stdin.buffer, whose lock a reading thread would hold while Python ends.
            with self._stdin or open(0, "rb", closefd=False) as file:
                yield from read_list(file, "stdin", self._base or Path())
        elif is_uri(word):
            if names_many(word):
                yield from Bucket(word, self._s3_endpoint_url).read()
            else:
                yield Reference(word, word)
        elif is_pattern(word) and not Path(word).expanduser().exists():
            for path in self._matches(word):
                yield from self._read_path(path)
        else:
            yield from self._read_path(Path(word).expanduser(), word)

    def _read_path(self, path: Path, word: str | None = None) -> Iterator[Reference]:
        if path.is_dir():
            for image, fault in images_below(path):
                yield Reference(spelled(str(image)), str(image), fault=fault)
        else:
            yield from self._read_file(path, word or str(path))

    def _read_file(self, path: Path, word: str) -> Iterator[Reference]:
        kind, name, folder = path.suffix.lower(), spelled(word), self._base or path.parent
        if kind not in TABLES:
            yield Reference(name, str(path))
        elif kind in PARQUET:
            yield from ParquetTable(path, name, self._columns).read(folder)
        else:
            with path.open("rb") as file:
                if kind in LISTS:
                    yield from read_list(file, name, folder)
                elif kind in COMMAS:
                    tab = "\t" if kind == ".tsv" else None
                    yield from read_csv(file, name, folder, self._columns, tab)
                else:
                    yield from read_jsonl(file, name, folder, self._columns)

    def _identity(self, word: str) -> Identity:
        if word == STDIN or names_many(word):
            return Identity()
        if is_uri(word):
            return Identity(total=1)
        path = Path(word).expanduser()
        if path.is_file():
            return self._identity_of_file(path)
        if path.exists() or Path(word).suffix.lower() not in TABLES:
            return Identity()
        each = [self._identity_of_file(path) for path in self._matches(word) if path.is_file()]
        prints = "\n".join(str(one.fingerprint) for one in each)
        return Identity(
            hashlib.sha256(prints.encode()).hexdigest(), sum(one.total or 0 for one in each)
        )

    def _identity_of_file(self, path: Path) -> Identity:
        kind = path.suffix.lower()
        if kind not in TABLES:
            return Identity(total=1)
        if kind in PARQUET:
            table = ParquetTable(path, str(path), self._columns)
            return Identity(table.fingerprint(), table.rows)
        digest = hashlib.sha256()

        def blocks(file: BinaryIO) -> Iterator[bytes]:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                yield block

        with path.open("rb") as file:
            count = count_lines(blocks(file))
        return Identity(digest.hexdigest(), max(0, count - (kind in COMMAS)))


def _check_table(word: str) -> None:
    path = Path(word).expanduser()
    if is_uri(word) or path.suffix.lower() not in TABLES - LISTS or path.is_dir():
        raise ValueError(
            f"Pairs are read from tables (.csv, .tsv, .jsonl, .parquet): {word!r} is none."
        )


def total_of(identities: Iterable[Identity]) -> int | None:
    """About how many references there are together; None where that is unknown of one."""
    totals = [one.total for one in identities]
    return None if None in totals else sum(total or 0 for total in totals)


def is_uri(word: str) -> bool:
    """Whether a word is a URI of a kind that jobs may name."""
    return "://" in word and urlsplit(word).scheme.lower() in SCHEMES
