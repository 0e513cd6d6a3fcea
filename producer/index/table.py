"""The vector index: a table of LanceDB, with a row for each image.

Vectors are compared by cosine (ITC). Below INDEXED_FROM rows each is compared exactly. From then on
`optimize` makes an index of kind IVF_SQ: vectors as 8-bit numbers in partitions. A search looks at
all partitions, and compares the best REFINE x k again as they were stored: docs/matching.md has
what that costs and gives. Rows added since are compared exactly until the next `optimize`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from producer.contract import Embedding, EmbeddingMismatch
from producer.index.entry import Entry
from producer.index.filters import of_images
from producer.index.place import Place

TABLE = "captions"
VERSION = "1"
INDEXED_FROM = 20_000
"""Rows that exact search still goes through in some tens of milliseconds."""

KEY = {"lance-schema:unenforced-primary-key": "true"}
"""Of the column by which two writers who add the same image at the same moment are told."""

PARTITION_ROWS = 8_192
ALL_PARTITIONS = 1_000_000
REFINE = 4
KMEANS_ITERATIONS = 10
SAID_CHARS = 300
REMOVED_AT_ONCE = 500
"""Images of one deletion, which is a version of the table."""

LANCE_ERRORS = (ValueError, RuntimeError, OSError)
BEGINNING_S = (0.1, 0.3, 0.9)
"""How long another process may take to make a table, whose folder comes before what is in it."""


class NoIndex(ValueError):  # noqa: N818 - that is what it is
    """There is no index at a place."""

    def __init__(self, uri: str) -> None:
        super().__init__(
            f"There is no index at {uri} yet. Make one: captionq index build IMAGES..., or from "
            "results with embeddings: captionq index add RESULTS..."
        )


class IndexUnavailable(OSError):  # noqa: N818 - that is what it is
    """LanceDB cannot read or write the index; the text says what it said."""


@dataclass(frozen=True)
class Space:
    """What vectors have to have in common to be compared."""

    model: str
    revision: str
    dimensions: int


@dataclass(frozen=True)
class Added:
    """What an upsert did."""

    new: int = 0
    replaced: int = 0


@dataclass(frozen=True)
class Hit:
    """A row that a search found, nearest first."""

    image_ref: str
    caption: str | None
    itc_cosine: float
    job_id: str | None
    captioned_at: datetime | None
    sha256: str | None
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Stats:
    """What an index holds. `indexed` counts the rows that its IVF_SQ has; `bytes` is of the data
    of its present version."""

    uri: str
    rows: int
    indexed: int
    model: str
    revision: str
    dimensions: int
    bytes: int
    version: int


class VectorIndex:
    """The index at a place; made by the first `upsert`. For one thread.

    Every method raises NotInstalled without LanceDB, and IndexUnavailable when it cannot read or
    write.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._opened: Any = None

    def space(self) -> Space | None:
        """What its vectors have in common; None before there is an index."""
        table = self._table()
        if table is None:
            return None
        schema = table.schema
        kept = {name.decode(): value.decode() for name, value in (schema.metadata or {}).items()}
        dimensions = schema.field("embedding").type.list_size
        return Space(kept["model"], kept["revision"], dimensions)

    def check(self, one: Entry | Embedding) -> None:
        """Pass what can be compared with the rows there are.

        Raises:
            EmbeddingMismatch: it is of another model, revision or size.
        """
        self._check(self.space(), space_of(one))

    def upsert(self, entries: Sequence[Entry]) -> Added:
        """Add rows; one of the same id is replaced. All of them are there, or none.

        Raises:
            EmbeddingMismatch: some are of another model, revision or size; none is added.
        """
        by_id = {entry.id: entry for entry in entries}
        if not by_id:
            return Added()
        spaces = {space_of(entry): None for entry in by_id.values()}
        first = next(iter(spaces))
        for space in spaces:
            self._check(self.space() or first, space)
        if self._opened is None:
            with _typed(self.place):
                self._opened = self._created(first)
            self._check(self.space(), first)  # another process may have been first
        with _typed(self.place):
            merged = (
                self._opened.merge_insert("id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute(_rows(by_id, _schema(first)))
            )
        return Added(merged.num_inserted_rows, merged.num_updated_rows)

    def remove(self, image_refs: Sequence[str]) -> int:
        """Remove the rows of these images; how many there were.

        `s3://bucket/key` stands for every version of the object, `...?versionId=V` for that one.
        Nothing to remove, or no index, is no error. An image that is added later is there again.
        """
        table = self._table()
        if table is None or not image_refs:
            return 0
        removed = 0
        with _typed(self.place):
            table.checkout_latest()  # what others have added since goes as well
            for begin in range(0, len(image_refs), REMOVED_AT_ONCE):
                condition = of_images(image_refs[begin : begin + REMOVED_AT_ONCE])
                removed += int(table.delete(condition).num_deleted_rows)
        return removed

    def nearest(
        self, embedding: Embedding, k: int, where: Any = None, exact: bool = False
    ) -> list[Hit]:
        """The k rows nearest to a vector of those that pass a filter (producer/index/filters.py).

        Args:
            exact: compare with all rows, even where there is an index.

        Raises:
            NoIndex: there is none.
            EmbeddingMismatch: see `check`.
        """
        table = self._there()
        self.check(embedding)
        names = [name for name in Hit.__annotations__ if name != "itc_cosine"]
        with _typed(self.place):
            query = table.search(list(embedding.values()), vector_column_name="embedding")
            query = query.distance_type("cosine").limit(k).select([*names, "_distance"])
            if where is not None:
                query = query.where(where, prefilter=True)
            if exact:
                query = query.bypass_vector_index()
            else:
                query = query.nprobes(ALL_PARTITIONS).refine_factor(REFINE)
            rows = query.to_arrow().to_pylist()
        return [Hit(itc_cosine=1 - row.pop("_distance"), **row) for row in rows]

    def stats(self) -> Stats:
        """What it holds. Raises: NoIndex: there is none."""
        table, space = self._there(), self.space()
        assert space is not None  # noqa: S101 - there is a table
        with _typed(self.place):
            found = table.stats()
            return Stats(
                uri=self.place.uri,
                rows=found["num_rows"],
                indexed=self._indexed(table),
                model=space.model,
                revision=space.revision,
                dimensions=space.dimensions,
                bytes=found["total_bytes"],
                version=table.version,
            )

    def optimize(self) -> None:
        """Bring rows together that came in small pieces, and index them from INDEXED_FROM on.

        Raises:
            NoIndex: there is none.
        """
        from lancedb.index import BTree, IvfSq

        table = self._there()
        with _typed(self.place):
            if table.count_rows() >= INDEXED_FROM and not self._indexed(table):
                kind = IvfSq(
                    distance_type="cosine",
                    target_partition_size=PARTITION_ROWS,
                    max_iterations=KMEANS_ITERATIONS,
                )
                table.create_index("embedding", config=kind)
                table.create_index("id", config=BTree())  # for merge_insert to find rows by
            table.optimize()

    def optimize_when_due(self) -> bool:
        """Optimize when INDEXED_FROM rows or more are compared one by one; whether it did.

        Raises:
            NoIndex: there is none.
        """
        table = self._there()
        with _typed(self.place):
            due = bool(table.count_rows() - self._indexed(table) >= INDEXED_FROM)
        if due:
            self.optimize()
        return due

    def _check(self, known: Space | None, given: Space) -> None:
        if known is None or known == given:
            return
        raise EmbeddingMismatch(
            f"The index at {self.place.uri} holds embeddings of {known.model} at "
            f"{known.revision} ({known.dimensions} numbers each), and these are of {given.model} "
            f"at {given.revision} ({given.dimensions}): they cannot be compared. Use workers "
            "whose CAPTIONQ_MATCH_MODEL is the index's, or build another index (--index) by these."
        )

    def _there(self) -> Any:
        table = self._table()
        if table is None:
            raise NoIndex(self.place.uri)
        return table

    def _table(self) -> Any:
        if self._opened is None and self.place.begun:
            with _typed(self.place):
                database = self.place.connect()
                if TABLE in database.list_tables().tables:
                    self._opened = _opened(database)
        return self._opened

    def _created(self, space: Space) -> Any:
        """A new table, or the one that another process has just made."""
        with self.place.begun_by_one():
            if (table := self._table()) is not None:
                return table
            return self.place.connect().create_table(TABLE, schema=_schema(space))

    @staticmethod
    def _indexed(table: Any) -> int:
        found = [one for one in table.list_indices() if one.columns == ["embedding"]]
        return sum(table.index_stats(one.name).num_indexed_rows for one in found)


def _opened(database: Any) -> Any:
    for wait_s in BEGINNING_S:
        with suppress(*LANCE_ERRORS):
            return database.open_table(TABLE)
        time.sleep(wait_s)
    return database.open_table(TABLE)


def space_of(one: Entry | Embedding) -> Space:
    """What a vector has in common with those it can be compared with."""
    values = one.vector if isinstance(one, Entry) else one.values()
    return Space(one.model, one.revision, len(values))


@contextmanager
def _typed(place: Place) -> Iterator[None]:
    """LanceDB raises whatever its parts do; the place and what it said are what is known."""
    try:
        yield
    except LANCE_ERRORS as exc:
        if isinstance(exc, OSError) and type(exc).__module__.startswith("producer."):
            raise
        said = " ".join(str(exc).split())
        said = said if len(said) <= SAID_CHARS else f"{said[:SAID_CHARS]}..."
        raise IndexUnavailable(f"The index at {place.uri} cannot be used: {said}") from exc


def _schema(space: Space) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    columns = {
        "id": text,
        "image_ref": text,
        "caption": text,
        "embedding": pa.list_(pa.float32(), space.dimensions),
        "job_id": text,
        "captioned_at": pa.timestamp("us", tz="UTC"),
        "sha256": text,
        "width": number,
        "height": number,
    }
    fields = [pa.field(name, kind) for name, kind in columns.items()]
    fields[0] = pa.field("id", text, nullable=False, metadata=KEY)
    kept = {"captionq_index": VERSION, "model": space.model, "revision": space.revision}
    return pa.schema(fields, metadata=kept)


def _rows(by_id: dict[str, Entry], schema: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    entries = list(by_id.values())
    kind = schema.field("embedding").type
    flat = np.concatenate([np.asarray(entry.vector, dtype=np.float32) for entry in entries])
    columns = {
        "id": list(by_id),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind),
    }
    for name in schema.names:
        if name not in columns:
            columns[name] = [getattr(entry, name) for entry in entries]
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
