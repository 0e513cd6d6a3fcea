"""Copies of packs on this machine, each whole and checked, or not there at all.

    CACHE/STAMP.lock        held while a pack is read; alone, while it is made or removed
    CACHE/STAMP/NAME/       its files
    CACHE/STAMP/.sums.json  their SHA-256, by name; written last. No pack is called so

Several worker processes share one cache.
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

__all__ = ["Copies"]

SUMS = ".sums.json"
DOWNLOAD_S = 120.0
"""Longest time for a pack to be copied, seconds."""

ABANDONED_S = 3_600.0
"""A copy that was begun so long ago is no more being made."""

TRIES = 3


class Named(Protocol):
    """A file of a pack."""

    @property
    def name(self) -> str:
        """In the pack's folder."""


FileT = TypeVar("FileT", bound=Named)
Get = Callable[[FileT, Path, float], None]


class Copies:
    """The copies of one place's packs, in a folder of their own."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    @contextmanager
    def opened(
        self,
        stamp: str,
        name: str,
        files: Sequence[FileT],
        get: Get[FileT],
    ) -> Iterator[Path]:
        """The folder `name` of a pack, copied by `get(file, path, deadline)` where it is not there.

        Raises:
            OSError: the cache cannot be written.
            Exception: what `get` raises.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        whole = self._cache / stamp
        for _ in range(TRIES):
            with self._locked(stamp, fcntl.LOCK_SH):
                if _is_whole(whole, name):
                    yield whole / name
                    return
            with self._locked(stamp, fcntl.LOCK_EX):
                if not _is_whole(whole, name):
                    self._make(whole, name, files, get)
        raise OSError(f"{whole} is removed as soon as it is made")

    def keep_only(self, stamps: Collection[str]) -> None:
        """Remove the copies of other packs, but for those that are being read."""
        for path in self._cache.iterdir() if self._cache.is_dir() else ():
            if path.name.startswith("."):
                if _is_abandoned(path):
                    shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and path.name not in stamps:
                try:
                    with self._locked(path.name, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(path, ignore_errors=True)
                except BlockingIOError:
                    continue

    def _make(self, whole: Path, name: str, files: Sequence[FileT], get: Get[FileT]) -> None:
        shutil.rmtree(whole, ignore_errors=True)  # damaged
        deadline_s = time.monotonic() + DOWNLOAD_S
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=".") as scratch:
            made = Path(scratch) / "made"
            (made / name).mkdir(parents=True)
            for file in files:
                get(file, made / name / file.name, deadline_s)
            sums = {file.name: _sum(made / name / file.name) for file in files}
            (made / SUMS).write_text(json.dumps(sums), encoding="utf-8")
            made.rename(whole)

    @contextmanager
    def _locked(self, stamp: str, how: int) -> Iterator[None]:
        with (self._cache / f"{stamp}.lock").open("a") as file:
            fcntl.flock(file, how)
            yield


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_S
    except FileNotFoundError:  # another process has made it, and its name is another now
        return False


def _is_whole(folder: Path, name: str) -> bool:
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        return all(_sum(folder / name / file) == told for file, told in sums.items())
    except (OSError, ValueError):
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
