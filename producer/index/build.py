"""A run whose captions and embeddings go into an index, as the results of its chunks come."""

from collections.abc import Sequence

from producer.contract import CaptionChunk, JobResult
from producer.index.entry import LeftOut, entries_of
from producer.index.filling import Filling
from producer.manifest.kinds import Captions
from producer.manifest.outputs import Output
from producer.manifest.reference import Reference
from producer.manifest.rows import Row


class Indexed(Captions):
    """Rows of captions; what they are made of goes into an index as well, but for failures."""

    def __init__(self, chunk: CaptionChunk, filling: Filling) -> None:
        super().__init__(chunk)
        self._filling = filling

    def answered(
        self,
        images: tuple[str, ...],
        asked: Sequence[tuple[int, Reference]],
        result: JobResult,
    ) -> list[Row]:
        """See `Rows.answered`. Raises: EmbeddingMismatch: of another revision than the index."""
        for entry in entries_of(result):
            if entry is not LeftOut.FAILED:
                self._filling.take(entry)
        return super().answered(images, asked, result)


class IndexedOutput:
    """An output whose rows are committed when what they are made of is in the index."""

    def __init__(self, rows: Output, filling: Filling) -> None:
        self._rows = rows
        self._filling = filling

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""
        self._rows.cut(mark)

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`."""
        self._rows.write(rows)

    @property
    def due(self) -> bool:
        """See `Output.due`."""
        return self._filling.due or self._filling.empty

    def commit(self) -> int:
        """See `Output.commit`."""
        self._filling.flush()
        return self._rows.commit()

    def close(self) -> None:
        """See `Output.close`."""
        self._rows.close()
