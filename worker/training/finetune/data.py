"""What a run learns from, and what it is held against: read, of one language, divided."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.training.finetune.on_disk import open_dataset, read_dataset
from worker.training.finetune.pictures import Picture
from worker.training.finetune.rows import (
    Columns,
    Complaints,
    Row,
    of_language,
    read_manifest,
    split,
)
from worker.training.finetune.settings import Settings


@dataclass(frozen=True)
class Data:
    """rows: to learn from. held: to validate on, maybe none. others: rows of other languages."""

    rows: Sequence[Row]
    held: Sequence[Row]
    language: str | None
    others: int = 0

    @property
    def pictures(self) -> list[Picture]:
        """Each image once, in order."""
        return list(dict.fromkeys(row.picture for row in (*self.rows, *self.held)))

    def without(self, pictures: Collection[Picture]) -> "Data":
        """But for the rows of these images."""
        rows, held = (
            [row for row in some if row.picture not in pictures] for some in (self.rows, self.held)
        )
        return Data(rows, held, self.language, self.others)

    def digest(self) -> str:
        """SHA-256 over what the rows say, and the names and sizes of their images."""
        return _digest(self.rows)

    def validation_digest(self) -> str:
        """The same of what is held."""
        return _digest(self.held)

    def facts(self) -> dict[str, Any]:
        """What a card says of it."""
        return {
            "rows": len(self.rows),
            "images": len({row.picture for row in self.rows}),
            "labelled_false": sum(not row.match for row in self.rows),
            "validation_rows": len(self.held),
        }


def read_data(
    source: Path,
    validation: Path | float | None,
    language: str | None,
    columns: Columns,
    settings: Settings,
    complaints: Complaints,
) -> Data:
    """The data of a manifest or a dataset's folder.

    validation: another one, or a share of this; a dataset may have one of its own.

    Raises:
        ValueError: there is nothing to learn from, or to validate on where that was asked for.
        OSError: it cannot be read.
    """
    every, own_held = _rows(source, columns, complaints)
    rows, tag, others = of_language(every, language)
    held: list[Row] = []
    if isinstance(validation, float):
        rows, held = split(rows, validation, settings.seed)
    elif isinstance(validation, Path):
        held = of_language(_rows(validation, columns, complaints)[0], language or tag).rows
    elif own_held is not None:
        held = of_language(own_held, language or tag).rows
    if settings.task == "caption":
        rows, held = ([row for row in some if row.match] for some in (rows, held))
    if not rows:
        raise ValueError(f"{source} has no row to train on ({complaints.count} left out)")
    if validation is not None and not held:
        raise ValueError("the validation set is empty: name a larger share, or another file")
    if settings.patience and not held:
        raise ValueError("--patience needs --validation")
    return Data(rows, held, tag, others)


def _rows(
    path: Path, columns: Columns, complaints: Complaints
) -> tuple[list[Row], list[Row] | None]:
    if not path.is_dir():
        return list(read_manifest(path, columns, complaints)), None
    train, held = open_dataset(path)
    rows = list(read_dataset(train, path.name, path, columns, complaints))
    if held is None:
        return rows, None
    return rows, list(read_dataset(held, path.name, path, columns, complaints))


def _digest(rows: Sequence[Row]) -> str:
    found = hashlib.sha256()
    for row in rows:
        said = f"{row.picture.identity()}\t{row.caption}\t{row.match}\n"
        found.update(said.encode("utf-8", "surrogateescape"))
    return found.hexdigest()
