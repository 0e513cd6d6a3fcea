"""A run whose captions and embeddings go into an index, as the results of its chunks come."""

from collections.abc import Iterable, Sequence
from typing import Any

from producer.contract import Job, JobResult
from producer.index.entry import entries_of
from producer.index.filling import Filling
from producer.manifest.attended import Aside
from producer.manifest.outputs import Output
from producer.manifest.rows import Row
from producer.manifest.service import Service
from producer.store import Record
from producer.watch import Watch


class Building(Aside):
    """Fills an index beside a run: rows of the run are done when their entries are in it."""

    def __init__(self, filling: Filling) -> None:
        self._filling = filling

    def service(self, client: Service) -> Service:
        """See `Aside.service`."""
        return _Overheard(client, self._filling)

    def output(self, rows: Output) -> Output:
        """See `Aside.output`."""
        return _Indexed(rows, self._filling)

    def finish(self) -> None:
        """See `Aside.finish`."""
        self._filling.finish()

    def words(self) -> str:
        """See `Aside.words`."""
        return self._filling.words()

    def document(self) -> dict[str, Any]:
        """See `Aside.document`."""
        return self._filling.document()


class _Overheard:
    """A service whose results are taken into an index before the run has them."""

    def __init__(self, service: Service, filling: Filling) -> None:
        self._service = service
        self._filling = filling

    def submit_many(self, jobs: Iterable[Job]) -> object:
        return self._service.submit_many(jobs)

    def watch(self) -> Watch:
        return _OverheardWatch(self._service.watch(), self._filling)

    def status(self, job_id: str) -> Record | None:
        return self._service.status(job_id)


class _OverheardWatch:
    def __init__(self, watch: Watch, filling: Filling) -> None:
        self._watch = watch
        self._filling = filling

    def add(self, job_ids: Iterable[str]) -> None:
        self._watch.add(job_ids)

    def next(self, timeout_s: float) -> list[JobResult]:
        results = self._watch.next(timeout_s)
        for result in results:
            for entry in entries_of(result):
                self._filling.take(entry)
        return results

    def close(self) -> None:
        self._watch.close()


class _Indexed:
    """An output whose rows are on the disk when what was overheard of them is in the index."""

    def __init__(self, rows: Output, filling: Filling) -> None:
        self._rows = rows
        self._filling = filling

    def cut(self, mark: int) -> None:
        self._rows.cut(mark)

    def write(self, rows: Sequence[Row]) -> None:
        self._rows.write(rows)

    @property
    def due(self) -> bool:
        return self._filling.due or self._filling.empty

    def commit(self) -> int:
        self._filling.flush()
        return self._rows.commit()

    def close(self) -> None:
        self._rows.close()
