"""A power cut: the end of Redis with all that its disk had not been told to keep.

kill -9 alone loses nothing, whatever `appendfsync` says: what Redis has written lies in the
kernel's memory. With `everysec` a host that dies takes the last second of that with it.
"""

import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

LOST_S = 1.0
LOOK_EVERY_S = 0.01


class _Look(NamedTuple):
    at_s: float
    inode: int
    size: int


class Tail:
    """Watches the append-only file of the server whose data lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looks: deque[_Look] = deque(maxlen=round(2 * LOST_S / LOOK_EVERY_S))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def cut(self, at_s: float) -> int:
        """Take from the file what was written in the LOST_S seconds before `at_s`, when the server
        was killed; returns how many bytes. A file that was rewritten since is left as it is."""
        path = self._path()
        if path is None:
            return 0
        found = path.stat()
        kept = [look for look in list(self._looks) if look.at_s <= at_s - LOST_S]
        if not kept or kept[-1].inode != found.st_ino or kept[-1].size >= found.st_size:
            return 0
        os.truncate(path, kept[-1].size)
        return found.st_size - kept[-1].size

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        self._thread.join()

    def _path(self) -> Path | None:
        files = [path for path in self._folder.rglob("*.aof") if "base" not in path.name]
        return max(files, key=lambda path: path.stat().st_mtime, default=None)

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            try:
                path = self._path()
                if path is not None:
                    found = path.stat()
                    self._looks.append(_Look(time.monotonic(), found.st_ino, found.st_size))
            except OSError:  # renamed at this moment
                continue
