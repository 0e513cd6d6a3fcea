"""Texts to learn from: a text file with one a line, or the captions of a manifest."""

from collections.abc import Iterator
from pathlib import Path

from producer.manifest.sources import COMMAS, OBJECTS, PARQUET
from producer.manifest.tables import GUESSES, chosen_column
from worker.training.finetune.rows import LANGUAGE, is_unicode
from worker.training.finetune.tables import table_rows


def read(path: Path, column: str | None = None, language: str | None = None) -> Iterator[str]:
    """The texts of a file, in order; rows without one are left out.

    column: of a manifest, by default one of the usual names. Of its rows that say their language,
    those of another than the one asked for are left out.

    Raises:
        NotInstalled: it is Parquet, and there is no pyarrow.
        ValueError: it is no such table, lacks the column, or is not UTF-8.
        OSError: it cannot be read.
    """
    if path.suffix.lower() not in OBJECTS | COMMAS | PARQUET:
        with path.open(encoding="utf-8-sig") as file:
            yield from filter(None, map(str.strip, file))
        return
    name = ""
    for _, row in table_rows(path):
        if isinstance(row, str):
            continue
        name = name or chosen_column(
            path.name, list(row), column, GUESSES["caption"], "texts", "--column"
        )
        own = language is None or str(row.get(LANGUAGE) or language).lower() == language.lower()
        said = row.get(name)
        if own:
            given = said if isinstance(said, list) else [said]
            texts = (text for text in given if isinstance(text, str) and text.strip())
            yield from filter(is_unicode, texts)
