"""Files that are being written, until they have been left alone for a while. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Look = Callable[[Path], "Stamp | None"]


@dataclass(frozen=True)
class Stamp:
    """A file as it stands: another size or moment of change is another content."""

    size: int
    mtime_ns: int


class Settling:
    """Files that changed, each until it has looked the same for `settle_s` seconds.

    Args:
        look: how a file stands, None when it is gone.
    """

    def __init__(self, settle_s: float, look: Look) -> None:
        self._settle_s = settle_s
        self._look = look
        self._changing: dict[Path, tuple[Stamp, float]] = {}

    def __len__(self) -> int:
        return len(self._changing)

    def changed(self, path: Path, now_s: float) -> None:
        """Look at a file that may be new, or another."""
        stamp = self._look(path)
        if stamp is None:
            self._changing.pop(path, None)
        elif self._changing.get(path, (None,))[0] != stamp:
            self._changing[path] = stamp, now_s

    def gone(self, path: Path) -> None:
        """Wait for a file no more."""
        self._changing.pop(path, None)

    def settled(self, now_s: float) -> list[tuple[Path, Stamp]]:
        """The files that are complete by now, each once; one that stays empty is none, until it
        changes."""
        found = []
        for path, (stamp, since_s) in list(self._changing.items()):
            if now_s < since_s + self._settle_s:
                continue
            seen = self._look(path)
            if seen is None:
                del self._changing[path]
            elif seen != stamp:
                self._changing[path] = seen, now_s
            else:
                del self._changing[path]
                if stamp.size:
                    found.append((path, stamp))
        return found
