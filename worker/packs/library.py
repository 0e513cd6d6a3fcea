"""All packs of a worker: what its places have, which one answers a job, and those on the device."""

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from producer.errors import JobFailed
from worker.errors import Fault
from worker.packs.choice import MOST_NAMED, Unavailable, chosen
from worker.packs.found import Found, Served, why_not
from worker.packs.shelf import Shelf

if TYPE_CHECKING:
    from worker.blip import Engine
    from worker.blip.pack import Pack

__all__ = ["Packs", "PacksMissing", "Place", "served_by"]

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 5.0
"""How soon places are looked at again for a pack that is not known, seconds."""


class PacksMissing(Exception):  # noqa: N818 - they are
    """A place cannot be read, or a pinned pack cannot be had; the message says why."""


class Place(Protocol):
    """Where packs are. `listed` raises Fault or OSError."""

    where: str

    def listed(self) -> list[Found]:
        """What is there now."""

    def close(self) -> None:
        """After the last."""


def served_by(engines: "Mapping[str, Engine]") -> dict[str, Served]:
    """The checkpoints that packs may adapt, by task."""

    def of(engine: "Engine") -> Served:
        return Served(engine.model_id, engine.revision, lambda: engine.digest)

    return {task: of(engine) for task, engine in engines.items()}


class Packs:
    """Finds, chooses and keeps packs, for any number of threads.

    Args:
        engines: those that load packs, by task.
        places: in the order in which they are searched.
        room, pinned: of `Shelf`.
        language: the checkpoints' own, BCP 47.
        every_s: how often places are looked at, seconds.
    """

    def __init__(
        self,
        engines: "Mapping[str, Engine]",
        places: Sequence[Place] = (),
        *,
        room: int = 8,
        pinned: Collection[str] = (),
        language: str = "en",
        every_s: float = 60.0,
    ) -> None:
        self.language = language
        self._engines = dict(engines)
        self._served = served_by(engines)
        self._places = tuple(places)
        self._by_place: dict[str, list[Found]] = {place.where: [] for place in places}
        self._pinned = tuple(pinned)
        self._every_s = every_s
        self._shelf = Shelf(self._load, room, pinned)
        self._looking = threading.Lock()
        self._looked_s = -LOOK_AGAIN_S
        self._ended = threading.Event()

    @property
    def listed(self) -> list[Found]:
        """All packs, by place; those that cannot be used say why."""
        return [one for place in self._places for one in self._by_place[place.where]]

    @property
    def shelf(self) -> Shelf:
        """Those on the device."""
        return self._shelf

    def start(self) -> None:
        """Look at all places, load what is pinned, and look again from time to time.

        Raises:
            PacksMissing: a folder cannot be read, or a pinned pack cannot be had. A bucket that
                does not answer is tried again later.
        """
        away = []
        for place in self._places:
            try:
                self._look_at(place)
            except OSError as exc:
                raise PacksMissing(f"{place.where}: {exc.strerror or exc}") from exc
            except Fault as exc:
                log.warning("the packs of %s are not known yet: %s", place.where, exc)
                away.append(f"; {place.where} cannot be listed: {exc}")
        for name in self._pinned:
            if name not in (there := [one.name for one in self.listed]):
                names = ", ".join(there[:MOST_NAMED]) or "none"
                raise PacksMissing(f"no pack is named {name}; there are: {names}{''.join(away)}")
            self._preload(name)
        if self._places:
            threading.Thread(target=self._watch, name="packs", daemon=True).start()

    def look(self) -> None:
        """Look at all places; what one of them had stays known while it cannot be read."""
        with self._looking:
            self._look()

    def choose(self, task: str, language: str | None, adapter: str | None) -> Found | None:
        """The pack that answers a job of `task` ("caption" or "match"); None without one. What is
        not known is looked for.

        Raises:
            Unavailable, JobFailed: as `worker.packs.choice.chosen`.
        """
        if language is None and adapter is None:
            return None
        try:
            return chosen(self.listed, task, language, adapter, self.language)
        except Unavailable:
            if not self._looked_again():
                raise
            return chosen(self.listed, task, language, adapter, self.language)

    def take(self, found: Found) -> "Pack":
        """The pack on the device. Raises as `Shelf.take`."""
        return self._shelf.take(found)

    def close(self) -> None:
        """After the last job."""
        self._ended.set()
        for place in self._places:
            place.close()

    def _looked_again(self) -> bool:
        """Whether places were looked at because of this, or by another thread meanwhile."""
        before_s = self._looked_s
        with self._looking:
            if self._looked_s == before_s:
                if time.monotonic() - before_s < LOOK_AGAIN_S:
                    return False
                self._look()
            return True

    def _look(self) -> None:
        for place in self._places:
            try:
                self._look_at(place)
            except (Fault, OSError) as exc:
                if self._ended.is_set():  # it was closed meanwhile
                    return
                log.warning("the packs of %s cannot be listed: %s", place.where, exc)
        self._looked_s = time.monotonic()

    def _look_at(self, place: Place) -> None:
        listed = [self._judged(one) for one in place.listed()]
        before, self._by_place[place.where] = self._by_place[place.where], listed
        for one in listed:
            if one not in before and one.why_not is None:
                log.info("pack %s: %s, of %s", one.name, one.language or one.task, one.where)
            elif one not in before:
                amiss = one.task is None or one.task in self._served
                level = logging.WARNING if amiss else logging.DEBUG
                log.log(level, "pack %s of %s: %s", one.name, one.where, one.why_not)
        self._shelf.keep_only(self.listed)

    def _judged(self, found: Found) -> Found:
        if found.card is None or found.why_not is not None:
            return found
        return replace(found, why_not=why_not(found.card, self._served))

    def _load(self, found: Found) -> "Pack":
        if found.task is None or found.opened is None:
            raise Unavailable(f"The pack {found.name} cannot be used: {found.why_not}.")
        with found.opened() as folder:
            return self._engines[found.task].load_pack(folder)

    def _preload(self, name: str) -> None:
        named = [one for one in self.listed if one.name == name]
        try:
            for task in dict.fromkeys(one.task for one in named):
                if (
                    found := chosen(named, task or "caption", None, name, self.language)
                ) is not None:
                    self.take(found)
        except (JobFailed, Fault, OSError) as exc:
            raise PacksMissing(f"the pack {name} cannot be preloaded: {exc}") from exc

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self.look()
            except Exception:
                log.exception("packs could not be looked for")
