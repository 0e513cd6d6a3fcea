"""Texts to learn from: a text file with one a line, or the captions of a manifest."""

from collections.abc import Iterator
from pathlib import Path

from producer.manifest.tables import GUESSES, chosen_column
from worker.training.pairs import CSV, OTHERS, opened

LANGUAGE = "language"


def read(path: Path, column: str | None = None, language: str | None = None) -> Iterator[str]:
    """The texts of a file, in order; empty ones are left out.

    column: of a table, by default one of the usual names. Where a table has a column `language`
    and one is asked for, rows of others are left out.

    Raises:
        NotInstalled: without pyarrow, for a table.
        ValueError: it is no such table, lacks the column, or is not UTF-8.
        OSError: it cannot be read.
    """
    if path.suffix.lower() not in CSV and path.suffix.lower() not in OTHERS:
        with path.open(encoding="utf-8-sig") as file:
            yield from filter(None, map(str.strip, file))
        return
    rows = opened(path)
    names = rows.schema.names
    texts = chosen_column(path.name, names, column, GUESSES["caption"], "texts", "--column")
    choosing = language is not None and LANGUAGE in names
    for batch in rows.to_batches(columns=[texts, *([LANGUAGE] if choosing else [])]):
        for row in batch.to_pylist():
            if row[texts] and (not choosing or row[LANGUAGE] == language):
                yield str(row[texts])
