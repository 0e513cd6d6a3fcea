"""Labelled pairs: which texts people said match which images. Read from tables, through pyarrow."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.manifest.parquet import NotInstalled
from producer.manifest.reference import BadReference, Reference
from producer.manifest.tables import GUESSES, chosen_column

CSV = {".csv": ",", ".tsv": "\t"}
OTHERS = {".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet"}
LABEL_GUESSES = ("label", "match")
LABELS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True)
class Pair:
    """An image file, a text, and whether they match. `position` is where a table says so."""

    position: str
    image: Path
    text: str
    label: bool


class PairTable:
    """A CSV, TSV, JSON Lines or Parquet file of pairs, told by its suffix.

    Args:
        path: the table. Images with relative paths are in its folder.
        image, text, label: names of the columns; by default one of the usual names.

    Raises:
        NotInstalled: without pyarrow.
        ValueError: it is no such table, or lacks a column.
        OSError: it cannot be read.
    """

    def __init__(
        self,
        path: Path,
        image: str | None = None,
        text: str | None = None,
        label: str | None = None,
    ) -> None:
        self._path = path
        self._rows = _opened(path)
        name, names = path.name, self._rows.schema.names
        self._columns = [
            chosen_column(name, names, image, GUESSES["reference"], "images", "--column"),
            chosen_column(name, names, text, GUESSES["caption"], "texts", "--text-column"),
            chosen_column(name, names, label, LABEL_GUESSES, "labels", "--label-column"),
        ]

    def read(self, say: Callable[[str], None]) -> Iterator[Pair]:
        """The pairs, in the table's order. Rows are counted from 1, a header apart.

        say: is given a sentence for each row that names no image file here, or no text; it is left
        out.

        Raises:
            ValueError: a label is none, or the table is damaged.
        """
        for number, (image, text, label) in enumerate(self._values(), 1):
            position = f"{self._path.name}, row {number}"
            matches = LABELS.get(spelled(label))
            if matches is None:
                raise ValueError(f"{position}: the label is {label!r}, not 0 or 1, true or false")
            try:
                where = Reference(position, str(image or "").strip(), self._path.parent).locate()
                if where.path is None:
                    raise BadReference("The image is a URI, and only files here are read.")
                if not isinstance(text, str):
                    raise BadReference("The row has no text.")
            except BadReference as exc:
                say(f"left out {position}: {exc}")
                continue
            yield Pair(position, where.path, text, matches)

    def _values(self) -> Iterator[tuple[Any, ...]]:
        import pyarrow

        try:
            for batch in self._rows.to_batches(columns=self._columns):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
        except pyarrow.ArrowException as exc:
            raise ValueError(f"{self._path} cannot be read: {exc}") from exc


def _opened(path: Path) -> Any:
    """The table as a pyarrow dataset."""
    kind = path.suffix.lower()
    if kind not in CSV and kind not in OTHERS:
        raise ValueError(f"{path}: a table of pairs is one of {', '.join((*CSV, *OTHERS))}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        import pyarrow
        from pyarrow import csv, dataset
    except ModuleNotFoundError as exc:
        raise NotInstalled(
            "Reading tables of pairs needs pyarrow: pip install 'captionq[calibrate]'"
        ) from exc
    try:
        if kind not in CSV:
            return dataset.dataset(path, format=OTHERS[kind])
        dialect = csv.ParseOptions(delimiter=CSV[kind], newlines_in_values=True)
        rule = dataset.CsvFileFormat(dialect)
        names = dataset.dataset(path, format=rule).schema.names
        # Texts are texts, also where they look like numbers.
        words = pyarrow.schema([(name, pyarrow.string()) for name in names])
        return dataset.dataset(path, format=rule, schema=words)
    except pyarrow.ArrowException as exc:
        raise ValueError(f"{path} is no table of pairs: {exc}") from exc


def spelled(label: object) -> str:
    """A label as LABELS has it: True, 1, 1.0 and "1" are the same."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip().lower()
