"""Entries on their way into an index: gathered, and added many at a time."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from producer.index.entry import Entry, LeftOut
from producer.index.table import Added, IndexUnavailable, VectorIndex

BATCH_ROWS = 4_096
BATCH_S = 10.0
"""Every upsert is a version of the table, with files of its own: few and large ones are better."""

TOLD = {
    LeftOut.FAILED: "whose images failed",
    LeftOut.WITHOUT_EMBEDDING: "without an embedding of the image (ask for one: embed)",
    LeftOut.IN_SHARDS: "in shards, which are to be added themselves",
    LeftOut.UNREADABLE: "that cannot be read",
}


@dataclass
class Filling:
    """Takes entries, and adds them to an index when there are enough, or on `flush`.

    `new`, `replaced` and `left_out` count rows so far. `not_optimized` says why the index could not
    be brought into order, which costs searches time and nothing else.
    """

    index: VectorIndex
    clock_s: Callable[[], float] = time.monotonic
    new: int = 0
    replaced: int = 0
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    not_optimized: str | None = None
    _waiting: list[Entry] = field(default_factory=list)
    _since_s: float = 0.0

    def take(self, one: Entry | LeftOut) -> None:
        """Take what became of an image.

        Raises:
            EmbeddingMismatch: it cannot be compared with what the index holds.
        """
        if isinstance(one, LeftOut):
            self.left_out[one] += 1
            return
        self.index.check(one)
        if not self._waiting:
            self._since_s = self.clock_s()
        self._waiting.append(one)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    @property
    def due(self) -> bool:
        """Whether it is time to flush."""
        if self.empty:
            return False
        return len(self._waiting) >= BATCH_ROWS or self.clock_s() >= self._since_s + BATCH_S

    def flush(self) -> None:
        """Add what waits. Raises: see `VectorIndex.upsert`."""
        added: Added = self.index.upsert(self._waiting)
        self.new += added.new
        self.replaced += added.replaced
        self._waiting = []

    def finish(self) -> None:
        """Add what waits, the last; bring the index into order when that is due."""
        self.flush()
        if self.new or self.replaced:
            try:
                self.index.optimize_when_due()
            except IndexUnavailable as exc:  # another writer was first: the rows are there
                self.not_optimized = str(exc)

    def words(self) -> str:
        """What was added, in words."""
        rows = f"{self.new + self.replaced:,} rows added to {self.index.place.uri}"
        lines = [f"{rows}: {self.new:,} new, {self.replaced:,} in place of earlier ones."]
        lines += [f"  left out: {n:,} {TOLD[why]}" for why, n in self.left_out.most_common()]
        if self.not_optimized:
            lines.append(f"  not optimized (captionq index optimize): {self.not_optimized}")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """What was added, for programs."""
        return {
            "index": self.index.place.uri,
            "new": self.new,
            "replaced": self.replaced,
            "left_out": {why.value: n for why, n in self.left_out.items()},
            "not_optimized": self.not_optimized,
        }
