"""Parquet through pyarrow, which is imported only where a Parquet file is named."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from producer.manifest.reference import Reference
from producer.manifest.tables import OPTIONS, Columns

BATCH_ROWS = 1_024
BUFFER_BYTES = 262_144
FOOTER_BYTES = 8


class NotInstalled(OSError):  # noqa: N818 - that is what it is
    """A library that this needs is not installed; the text says how to install it."""


def pyarrow_parquet() -> Any:
    """The module pyarrow.parquet.

    Raises:
        NotInstalled: it is not there.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as exc:
        raise NotInstalled(
            "Reading and writing Parquet needs pyarrow: pip install 'captionq[manifests]'"
        ) from exc
    return pyarrow.parquet


class ParquetTable:
    """A Parquet file with a column of references, and maybe one of captions or of languages.

    Raises:
        NotInstalled: without pyarrow.
        ValueError: it is no Parquet file, or has no such columns of texts.
    """

    def __init__(self, path: Path, name: str, columns: Columns) -> None:
        self._path = path
        self._name = name
        file = self._open()
        try:
            self._read = columns
            self._columns = columns.chosen(name, file.schema_arrow.names)
            for column, what in zip(self._columns, columns.kinds, strict=True):
                kind = file.schema_arrow.field(column).type
                texts = kind.value_type if hasattr(kind, "index_type") else kind  # a dictionary's
                if str(texts) not in ("string", "large_string"):
                    raise ValueError(
                        f"The column {column} of {name} holds {kind}, not texts: name one of "
                        f"texts with {OPTIONS[what]}."
                    )
            self.rows: int = file.metadata.num_rows
        finally:
            file.close()

    def fingerprint(self) -> str:
        """Tells this content from another: of the file's size and its footer, which has the place,
        the size and mostly the bounds of every column."""
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            file.seek(size - FOOTER_BYTES)
            length = int.from_bytes(file.read(4), "little")
            file.seek(max(0, size - FOOTER_BYTES - length))
            return f"{size}:{hashlib.sha256(file.read(length + FOOTER_BYTES)).hexdigest()}"

    def read(self, folder: Path) -> Iterator[Reference]:
        """The references, a few pages of the columns at a time. Rows are counted from 1.

        Raises:
            ValueError: the file is damaged.
        """
        import pyarrow

        file, number = self._open(), 0
        try:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(self._columns)):
                columns = [_texts(batch.column(name)) for name in self._columns]
                for said in zip(*columns, strict=True):
                    number += 1
                    texts = [one or "" for one in said]
                    yield self._read.reference(f"{self._name}:{number}", texts, folder)
        except (pyarrow.ArrowException, OSError) as exc:
            words = " ".join(str(exc).split())
            raise ValueError(f"{self._name} cannot be read after row {number}: {words}") from exc
        finally:
            file.close()

    def _open(self) -> Any:
        parquet = pyarrow_parquet()
        import pyarrow

        try:
            # Pages are read as they are needed: neither a whole column of a row group, nor
            # (as by a memory map) the file.
            return parquet.ParquetFile(
                self._path, memory_map=False, buffer_size=BUFFER_BYTES, pre_buffer=False
            )
        except (pyarrow.ArrowException, OSError) as exc:
            raise ValueError(f"{self._name} is no Parquet file: {exc}") from exc


def _texts(column: Any) -> list[str | None]:
    """A column's texts. Bytes that are not UTF-8, which some writers do not check, stay what they
    are (PEP 383), as in tables of text."""
    try:
        texts: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast("large_binary").to_pylist()
        texts = [one if one is None else one.decode("utf-8", "surrogateescape") for one in raw]
    return texts
