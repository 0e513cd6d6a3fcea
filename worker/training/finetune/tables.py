"""Manifests as rows: JSON Lines, CSV, TSV or Parquet, each row with all of its columns."""

import csv
import json
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from producer.manifest.parquet import pyarrow_parquet
from producer.manifest.sources import COMMAS, OBJECTS, PARQUET
from producer.manifest.tables import TOO_LONG, lines

BATCH_ROWS = 1_024

TableRow = tuple[str, Mapping[str, Any] | str]
"""Where a row is said, and its columns, or what is wrong with it."""


def table_rows(path: Path) -> Iterator[TableRow]:
    """The rows of a manifest, as they come.

    Raises:
        NotInstalled: it is Parquet, and there is no pyarrow.
        ValueError: it is no such table.
        OSError: it cannot be read.
    """
    kind = path.suffix.lower()
    if kind in OBJECTS:
        yield from _objects(path)
    elif kind in COMMAS:
        yield from _csv(path)
    elif kind in PARQUET:
        yield from _parquet(path)
    else:
        known = ", ".join(sorted(OBJECTS | COMMAS | PARQUET))
        raise ValueError(f"{path}: a manifest is one of {known}, or a dataset's folder")


def _objects(path: Path) -> Iterator[TableRow]:
    with path.open("rb") as file:
        for number, line in lines(file):
            position = f"{path.name}:{number}"
            if line is None:
                yield position, TOO_LONG
            elif line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                yield position, row if isinstance(row, dict) else "The line is not a JSON object."


def _csv(path: Path) -> Iterator[TableRow]:
    with path.open("rb") as binary:
        file = TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        try:
            header = file.readline()
            delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=header.count)
            names = next(csv.reader([header], delimiter=delimiter), [])
            table = csv.DictReader(file, [name.strip() for name in names], delimiter=delimiter)
            for number, row in enumerate(table, 1):
                row.pop(None, None)  # fields beyond the last column
                yield f"{path.name}, row {number}", row
        except (csv.Error, UnicodeDecodeError) as exc:
            raise ValueError(f"{path} is no CSV file in UTF-8: {exc}") from exc


def _parquet(path: Path) -> Iterator[TableRow]:
    parquet = pyarrow_parquet()
    import pyarrow

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}, row {number}", row
    except pyarrow.ArrowException as exc:
        raise ValueError(f"{path} is no readable Parquet file: {exc}") from exc
