"""Memory and open files of worker processes, young and old."""

from dataclasses import dataclass
from typing import NamedTuple

import psutil

YOUNG_S = 20.0
"""Until then a process still warms up."""

EVERY_S = 5.0
OLD_S = 120.0
"""A younger process says nothing of growth."""

MEMORY_GROWTH = 0.1
MORE_FILES = 10
"""Each of the worker's threads may open one connection more, when several need one at once."""


class Size(NamedTuple):
    """What a process takes after `lived_s` seconds: memory (bytes), open files."""

    lived_s: float
    memory: int
    files: int


@dataclass(frozen=True)
class Flatness:
    """The process that lived longest, young and old."""

    young: Size
    old: Size

    def __str__(self) -> str:
        before, after = (round(size.memory / 2**20) for size in (self.young, self.old))
        return (
            f"the oldest worker process lived {self.old.lived_s:.0f} s: "
            f"memory {before} -> {after} MiB, open files {self.young.files} -> {self.old.files}"
        )

    @property
    def broken(self) -> list[str]:
        """What grew, in words."""
        if self.old.lived_s < OLD_S:
            return []
        grew = (
            self.old.memory > self.young.memory * (1 + MEMORY_GROWTH)
            or self.old.files > self.young.files + MORE_FILES
        )
        return [f"not flat: {self}"] if grew else []


class Sizes:
    """The sizes of all processes, taken every EVERY_S seconds."""

    def __init__(self) -> None:
        self._young: dict[int, Size] = {}
        self._old: dict[int, Size] = {}

    def weigh(self, pid: int, lived_s: float) -> None:
        """Take the size of a process, if it is time for that."""
        if lived_s < YOUNG_S or (pid in self._old and lived_s - self._old[pid].lived_s < EVERY_S):
            return
        try:
            process = psutil.Process(pid)
            size = Size(lived_s, process.memory_info().rss, process.num_fds())
        except psutil.Error:  # it has just ended
            return
        self._young.setdefault(pid, size)
        self._old[pid] = size

    def flatness(self) -> Flatness | None:
        """Of the process that lived longest; None when none lived long enough to be weighed."""
        pid = max(self._old, key=lambda one: self._old[one].lived_s, default=None)
        return None if pid is None else Flatness(self._young[pid], self._old[pid])
