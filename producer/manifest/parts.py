"""Rows as Parquet: a folder of parts, each a whole file.

A Parquet file has its index at its end, so that one which is cut off cannot be read at all. A
folder of parts can be read at any moment, as one table, by whatever reads Parquet (pyarrow, pandas,
DuckDB, Spark), and goes on growing when a run is resumed. A part appears under its name when it is
on the disk; until then its name begins with a dot, which those readers pass over. The mark is the
number of parts.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from producer.manifest.journal import CannotResume
from producer.manifest.kinds import MATCH
from producer.manifest.parquet import pyarrow_parquet
from producer.manifest.rows import Holds, Row

PART_ROWS = 8_192
PART_S = 300.0
"""Rows wait in memory for a part of so many, or for so many seconds; what is lost with the process
is found again in the results store, which keeps it for a day."""

_PART = re.compile(r"part-(\d{5,})\.parquet|\.part-\d{5,}\.parquet\.unfinished")


class Parts:
    """Rows in `folder/part-00000.parquet` and so on.

    Raises:
        NotInstalled: without pyarrow.
        OSError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, Holds],
        part_rows: int = PART_ROWS,
        part_s: float = PART_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parquet = pyarrow_parquet()
        self._folder = folder
        self._part_rows = part_rows
        self._part_s = part_s
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._batches: list[Any] = []
        self._rows = 0
        self._parts = 0
        self._schema = _schema(columns)
        folder.mkdir(parents=True, exist_ok=True)

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""
        there = set()
        for path in self._folder.iterdir():
            if (found := _PART.fullmatch(path.name)) is None:
                continue
            if found[1] is None or int(found[1]) >= mark:
                path.unlink()
            else:
                there.add(int(found[1]))
        if len(there) < mark:
            raise CannotResume(f"{self._folder} has lost parts since the run was interrupted.")
        self._parts = mark

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`."""
        import pyarrow

        if not self._rows:
            self._began_s = self._clock_s()
        # Columns take a tenth of the memory of rows.
        self._batches.append(pyarrow.RecordBatch.from_pylist(rows, schema=self._schema))
        self._rows += len(rows)

    @property
    def due(self) -> bool:
        """See `Output.due`."""
        late = self._clock_s() >= self._began_s + self._part_s
        return self._rows >= self._part_rows or (late and self._rows > 0)

    def commit(self) -> int:
        """See `Output.commit`."""
        if self._rows:
            import pyarrow

            path = self._folder / f"part-{self._parts:05}.parquet"
            unfinished = path.with_name(f".{path.name}.unfinished")
            table = pyarrow.Table.from_batches(self._batches, schema=self._schema)
            table = table.combine_chunks()  # else a row group for each chunk
            with unfinished.open("wb") as file:
                self._parquet.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            sync_folder(self._folder)
            self._parts += 1
            self._batches, self._rows = [], 0
        return self._parts

    def close(self) -> None:
        """See `Output.close`."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # where there never was a row


def sync_folder(folder: Path) -> None:
    """See a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _schema(columns: Mapping[str, Holds]) -> Any:
    import pyarrow

    lists = {
        "strings": pyarrow.string(),
        "vector": pyarrow.float32(),
        "matches": pyarrow.struct(
            [(name, pyarrow.type_for_alias(kind)) for name, kind in MATCH.items()]
        ),
    }
    return pyarrow.schema(
        (name, pyarrow.list_(lists[kind]) if kind in lists else pyarrow.type_for_alias(kind))
        for name, kind in columns.items()
    )
