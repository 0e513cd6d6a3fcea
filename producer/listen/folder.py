"""Files that come into a folder, turned into jobs once they are complete."""

import asyncio
import logging
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from producer.event_intake import Prepare, Taken
from producer.event_rules import Event
from producer.listen.patience import PatientIntake, stopped_within
from producer.listen.settling import Settling, Stamp
from producer.manifest.folders import images_below, is_image
from producer.manifest.parquet import NotInstalled
from producer.object_event import Kind
from producer.upload import UploadFailed

log = logging.getLogger(__name__)

AT_ONCE = 100
"""Files that are submitted, and remembered, together."""

TICK_MS = 200


class FolderGone(OSError):  # noqa: N818 - that is what it is
    """The folder is not there any more, or another one is in its place."""


@dataclass(frozen=True)
class FileEvent:
    """A file that came or went. `bucket` is the folder, `key` its path below."""

    bucket: str
    key: str
    image_ref: str
    kind: Kind = "created"
    size: int | None = None
    mtime_ns: int = 0
    version: None = None
    sequencer: None = None

    @property
    def content(self) -> str:
        """Its size and the moment of its last change: a restart finds what was there before."""
        return f"{self.mtime_ns} {self.size}" if self.kind == "created" else f"at {self.mtime_ns}"


class FolderListener:
    """Watches a folder and those in it; hidden ones, links to folders, and links that lead out of
    it are passed over.

    Args:
        stop: set when it is to end.
        settle_s: how long a file has to have looked the same, in seconds.
        new_only: files that are there already are not taken.
        once: whether to end when those that are there have been taken.
    """

    def __init__(
        self,
        folder: Path,
        intake: PatientIntake,
        stop: asyncio.Event,
        *,
        settle_s: float = 1.0,
        new_only: bool = False,
        once: bool = False,
    ) -> None:
        self._folder = folder.absolute()
        self._real = folder.resolve()
        self._intake = intake
        self._stop = stop
        self._new_only = new_only
        self._once = once
        self._settling = Settling(settle_s, stamp_of)
        self.taken = Taken()

    async def run(self) -> None:
        """Listen.

        Raises:
            FolderGone: it is there no more.
            NotInstalled: without watchfiles.
        """
        since_ns = time.time_ns() if self._new_only else 0
        async for changes, anew in self._changes():
            now_s = time.monotonic()
            if anew:  # the watch is on: nothing comes between
                await asyncio.to_thread(self._look_below, self._folder, now_s, since_ns)
            gone = [path for path in changes if not path.exists()]
            for path in changes:
                self._note(path, now_s)
            settled = self._settling.settled(now_s)
            events = [self._removed(path) for path in gone if self._concerns(path)]
            events += [self._created(path, stamp) for path, stamp in settled]
            for begin in range(0, len(events), AT_ONCE):
                if not await self._take(events[begin : begin + AT_ONCE]):
                    return
            if self._once and not len(self._settling):
                return

    async def _changes(self) -> AsyncIterator[tuple[set[Path], bool]]:
        """Paths that changed, and whether others may have: at first, and when the watch broke. It
        does at names that are not UTF-8. Every few moments, also when there are none."""
        try:
            from watchfiles import Change, awatch
        except ModuleNotFoundError as exc:
            raise NotInstalled(
                "Listening to a folder needs watchfiles: pip install 'captionq[listen]'"
            ) from exc
        stands = self._place()
        while not self._stop.is_set():
            watch: Any = awatch(
                self._folder,
                watch_filter=None,
                debounce=TICK_MS,
                rust_timeout=TICK_MS,
                yield_on_timeout=True,
                stop_event=self._stop,
                ignore_permission_denied=True,
            )
            anew = True
            try:
                async for changes in watch:
                    went = (Change.deleted, str(self._folder)) in changes
                    if went or self._place() != stands:  # or nothing would ever come
                        raise FolderGone(f"The folder {self._folder} is there no more.")
                    yield {Path(path) for _, path in changes}, anew
                    anew = False
            except ExceptionGroup as group:
                broken, others = group.split(RuntimeError)
                if broken is None or others is not None:
                    raise
                log.warning("The watch begins anew: %s", broken.exceptions[0])
                await stopped_within(self._stop, TICK_MS / 1_000)

    def _place(self) -> tuple[int, int] | None:
        try:
            found = self._folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _note(self, path: Path, now_s: float) -> None:
        if path.is_dir() and not path.is_symlink():
            self._look_below(path, now_s)  # a folder that was moved here brings its files along
        elif self._concerns(path):
            self._settling.changed(path, now_s)

    def _look_below(self, folder: Path, now_s: float, since_ns: int = 0) -> None:
        for path, fault in images_below(folder):
            if fault is not None:
                log.warning("%s: %s", path, fault)
            elif self._concerns(path) and (not since_ns or _came_ns(path) >= since_ns):
                self._settling.changed(path, now_s)

    def _concerns(self, path: Path) -> bool:
        parts = path.relative_to(self._folder).parts
        return (
            is_image(path.name)
            and not any(part.startswith(".") for part in parts)
            and self._stays(path)
        )

    def _stays(self, path: Path) -> bool:
        """Whether it leads nowhere else: whoever may write here may not read all that we may."""
        try:
            return path.resolve().is_relative_to(self._real)
        except (OSError, RuntimeError):  # a loop of links
            return False

    def _created(self, path: Path, stamp: Stamp) -> FileEvent:
        return FileEvent(
            str(self._folder),
            path.relative_to(self._folder).as_posix(),
            path.as_uri(),
            size=stamp.size,
            mtime_ns=stamp.mtime_ns,
        )

    def _removed(self, path: Path) -> FileEvent:
        key = path.relative_to(self._folder).as_posix()
        return FileEvent(str(self._folder), key, path.as_uri(), "removed", mtime_ns=time.time_ns())

    async def _take(self, events: Sequence[FileEvent]) -> bool:
        """See to these; False when told to stop first. They are found again at the next start."""
        taken = await self._intake.take(events)
        if taken is not None:
            self.taken.add(taken)
        return taken is not None


def _came_ns(path: Path) -> int:
    try:
        return path.lstat().st_ctime_ns
    except OSError:
        return 0


def uploads(upload: Callable[[Path], str]) -> Prepare:
    """What copies files, several at a time, and names them by where they are then. A file that
    cannot be read is left out.

    The coroutine raises UploadFailed when S3 does not take one.
    """

    def copied(event: Event) -> Event | None:
        assert isinstance(event, FileEvent)  # noqa: S101 - of folders alone
        try:
            return replace(event, image_ref=upload(Path(event.bucket) / event.key))
        except UploadFailed:
            raise
        except OSError as exc:
            log.warning("%s cannot be read, and is passed over: %s", event.key, exc.strerror)
            return None

    async def prepare(events: Sequence[Event]) -> list[Event]:
        copies = await asyncio.gather(*(asyncio.to_thread(copied, event) for event in events))
        return [event for event in copies if event is not None]

    return prepare


def stamp_of(path: Path) -> Stamp | None:
    """How a file stands; None where there is none that can be read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
