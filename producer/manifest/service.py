"""What a run needs of others: of a client, and of a journal."""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from producer.contract import Job
from producer.manifest.journal import LeftOut
from producer.store import Record
from producer.watch import Watch


class Service(Protocol):
    """What a run needs of `producer.Client`."""

    def submit_many(self, jobs: Iterable[Job]) -> object:
        """See `Client.submit_many`."""

    def watch(self) -> Watch:
        """See `Client.watch`."""

    def status(self, job_id: str) -> Record | None:
        """See `Client.status`."""


class Notes(Protocol):
    """What a run needs of a journal."""

    def sent(self, number: int, digest: str, left_out: LeftOut) -> None:
        """See `Journal.sent`."""

    def done(self, numbers: Iterable[int], end: int, counts: Counter[str]) -> None:
        """See `Journal.done`."""

    def ended(self) -> None:
        """See `Journal.ended`."""


class NoNotes:
    """In place of a journal, for output that is not kept."""

    def sent(self, number: int, digest: str, left_out: LeftOut) -> None:
        """See `Journal.sent`."""

    def done(self, numbers: Iterable[int], end: int, counts: Counter[str]) -> None:
        """See `Journal.done`."""

    def ended(self) -> None:
        """See `Journal.ended`."""
