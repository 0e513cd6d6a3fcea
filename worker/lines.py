"""Items that wait for the device, by key and lane; first come, first served in each."""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic

from producer.queues import BULK, INTERACTIVE, Lane
from worker.batching import Key, Waiting


@dataclass(frozen=True)
class Done:
    """An item's result, and how it came to it."""

    value: Any
    batch_size: int
    waited_s: float
    ran_s: float


@dataclass(frozen=True, eq=False)
class Item:
    """A payload, the future that it is waited for by, and since when (the batcher's clock).

    weight: what it takes of a batch's room.
    """

    payload: Any
    future: "Future[Done]"
    since_s: float
    weight: int = 1


class Lines(Generic[Key]):
    """A line for each key and lane. Not safe to share between threads."""

    def __init__(self) -> None:
        self._lines: dict[Lane, dict[Key, deque[Item]]] = {INTERACTIVE: {}, BULK: {}}
        self._length: dict[Lane, int] = {INTERACTIVE: 0, BULK: 0}

    def length(self, lane: Lane) -> int:
        """How many items wait in a lane."""
        return self._length[lane]

    def __bool__(self) -> bool:
        """Whether any wait."""
        return any(self._length.values())

    def add(self, key: Key, lane: Lane, items: Iterable[Item]) -> None:
        """Put items last in line."""
        line = self._lines[lane].setdefault(key, deque())
        before = len(line)
        line.extend(items)
        self._length[lane] += len(line) - before

    def waiting(self) -> dict[Key, Waiting]:
        """What the policy has to know. Of bulk items that came at the same moment, the first here
        is the one that `longest_waiting_bulk` names."""
        found = {
            key: Waiting(bulk=len(line), bulk_oldest_s=line[0].since_s)
            for key, line in self._lines[BULK].items()
        }
        for key, line in self._lines[INTERACTIVE].items():
            bulk = found.get(key, Waiting())
            found[key] = bulk._replace(items=len(line), oldest_s=line[0].since_s)
        return found

    def longest_waiting_bulk(self) -> Item | None:
        """The bulk item that came first."""
        heads = (line[0] for line in self._lines[BULK].values())
        return min(heads, key=lambda item: item.since_s, default=None)

    def take(self, key: Key, first: Lane, most: int) -> list[Item]:
        """Take the oldest items of a key, of lane `first` and then of the other, without those
        that were cancelled; those that are taken cannot be any more. They weigh `most` together at
        most, or one of them does alone."""
        items: list[Item] = []
        room = most
        for lane in (first, INTERACTIVE if first == BULK else BULK):
            line = self._lines[lane].get(key)
            while line and room > 0 and (line[0].weight <= room or not items):
                self._length[lane] -= 1
                item = line.popleft()
                if item.future.set_running_or_notify_cancel():
                    items.append(item)
                    room -= item.weight
            if line is not None and not line:
                del self._lines[lane][key]
        return items

    def take_all(self) -> list[Item]:
        """Take all that wait, without those that were cancelled."""
        keys = {key for lines in self._lines.values() for key in lines}
        lines = (line for lines in self._lines.values() for line in lines.values())
        most = sum(item.weight for line in lines for item in line)
        return [item for key in keys for item in self.take(key, INTERACTIVE, most)]
