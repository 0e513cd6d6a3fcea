"""Packs on the device: each loaded once, however many ask at once; the least recently used go."""

import logging
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TYPE_CHECKING

from producer.errors import ErrorCode
from worker.errors import Fault
from worker.packs.choice import Unavailable
from worker.packs.found import Found

if TYPE_CHECKING:
    from worker.blip.pack import Pack

__all__ = ["Shelf"]

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Where a pack is, and its stamp."""


class Shelf:
    """Keeps packs for those who ask, from any number of threads.

    A pack that has gone stays as long as anyone has it, and is then given to others as well.

    Args:
        load: reads a pack onto the device; worker.blip's errors, Fault and OSError are mapped here.
        room: packs that are kept, beside those that are pinned.
        pinned: names of packs that never go.
    """

    def __init__(
        self, load: "Callable[[Found], Pack]", room: int, pinned: Collection[str] = ()
    ) -> None:
        self._load = load
        self._room = room
        self._pinned = frozenset(pinned)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, tuple[Found, Pack]] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[Key, Pack] = weakref.WeakValueDictionary()
        self._loading: dict[Key, Future[Pack]] = {}
        self._damaged: dict[Key, str] = {}
        self.loads: Counter[str] = Counter()
        """How often packs were loaded, by name."""

    @property
    def names(self) -> list[str]:
        """The packs that are kept, the least recently used first."""
        with self._lock:
            return [found.name for found, _ in self._kept.values()]

    def take(self, found: Found) -> "Pack":
        """The pack, loaded if need be. It stays on the device at least as long as it is held.

        Raises:
            Unavailable: it is damaged, or cannot be had.
            Fault: out_of_memory, device_lost, s3_unavailable: another time it may be there.
        """
        key = (found.where, found.stamp)
        with self._lock:
            if (pack := self._alive.get(key)) is not None:
                self._keep(key, found, pack)
                return pack
            if key in self._damaged:
                raise Unavailable(self._damaged[key])
            theirs = self._loading.get(key)
            ours = self._loading.setdefault(key, Future())
        if theirs is not None:
            return theirs.result()
        try:
            pack = self._loaded(key, found)
        except BaseException as exc:
            with self._lock:
                del self._loading[key]
            ours.set_exception(exc)
            raise
        with self._lock:
            self._alive[key] = pack
            self._keep(key, found, pack)
            del self._loading[key]
        ours.set_result(pack)
        return pack

    def keep_only(self, packs: Collection[Found]) -> None:
        """Let others go: they are no more to be had, or have changed."""
        keys = {(one.where, one.stamp) for one in packs}
        with self._lock:
            for key in [key for key in self._kept if key not in keys]:
                del self._kept[key]
            for key in [key for key in self._damaged if key not in keys]:
                del self._damaged[key]

    def _keep(self, key: Key, found: Found, pack: "Pack") -> None:
        """As the most recently used; with the lock."""
        self._kept[key] = (found, pack)
        self._kept.move_to_end(key)
        self._make_room(self._room)

    def _make_room(self, room: int) -> None:
        """Let all but so many go, and the pinned; with the lock."""
        loose = [key for key, (found, _) in self._kept.items() if found.name not in self._pinned]
        for key in loose[: max(0, len(loose) - room)]:
            del self._kept[key]

    def _loaded(self, key: Key, found: Found) -> "Pack":
        from worker.blip.errors import CheckpointError, DeviceLost, OutOfMemory

        began_s = time.monotonic()
        try:
            try:
                pack = self._load(found)
            except (OutOfMemory, MemoryError):
                with self._lock:
                    self._make_room(0)
                pack = self._load(found)
        except (OutOfMemory, MemoryError) as exc:
            raise Fault(ErrorCode.OUT_OF_MEMORY, f"the pack {found.name}: {exc}") from exc
        except DeviceLost as exc:
            raise Fault(ErrorCode.DEVICE_LOST, f"the pack {found.name}: {exc}") from exc
        except CheckpointError as exc:
            log.warning("the pack %s of %s cannot be used: %s", found.name, found.where, exc)
            why = f"The pack {found.name} cannot be used: {exc}."
            with self._lock:
                self._damaged[key] = why
            raise Unavailable(why) from exc
        except Fault as exc:
            log.warning("the pack %s of %s cannot be had: %s", found.name, found.where, exc)
            if exc.transient:
                detail = f"the pack {found.name}: {exc}"
                raise Fault(ErrorCode.S3_UNAVAILABLE, detail, exc.retry_after_s) from exc
            raise Unavailable(f"The pack {found.name} cannot be had: {exc.code.value}.") from exc
        except OSError as exc:
            log.warning("the pack %s of %s cannot be read: %s", found.name, found.where, exc)
            why = exc.strerror or type(exc).__name__
            raise Unavailable(f"The pack {found.name} cannot be read: {why}.") from exc
        self.loads[found.name] += 1
        log.info(
            "the pack %s (%s), %.1f MB, loaded in %.2f s",
            pack.name,
            pack.revision,
            pack.bytes / 1e6,
            time.monotonic() - began_s,
        )
        return pack
