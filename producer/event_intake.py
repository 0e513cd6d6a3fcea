"""Events in, jobs out: what listeners and the gateway's hook have in common."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from producer.contract import ImageJob
from producer.event_memory import EventMemory, Sighting
from producer.event_rules import Event, NoReference, Rules

log = logging.getLogger(__name__)


class Fate(StrEnum):
    """What became of an event."""

    SUBMITTED = "submitted"
    REPEATED = "repeated"
    STALE = "stale"
    NOT_WANTED = "not_wanted"
    NO_REFERENCE = "no_reference"
    REMOVED = "removed"
    """An object that went: out of the index, where that is asked for."""


@dataclass
class Taken:
    """Events by what became of them, and the jobs that they asked for."""

    events: Counter[Fate] = field(default_factory=Counter)
    jobs: int = 0

    def add(self, other: "Taken") -> None:
        """Count these as well."""
        self.events.update(other.events)
        self.jobs += other.jobs

    def words(self) -> str:
        """What was taken, for people."""
        counts = [f"{n:,} {fate.value.replace('_', ' ')}" for fate, n in self.events.most_common()]
        return f"{self.events.total():,} events ({', '.join(counts) or 'none'}), {self.jobs:,} jobs"

    def document(self) -> dict[str, int]:
        """What was taken, for programs."""
        return {fate.value: self.events[fate] for fate in Fate} | {"jobs": self.jobs}


class Intake:
    """Takes events: asks the rules, passes over what came before or too late, submits the rest.

    Args:
        submit: hands jobs to the broker, all of them; raises BrokerUnavailable.
        remove: takes images out of the index, all versions of those that name none; blocks. None
            where an object's removal changes nothing.
    """

    def __init__(
        self,
        rules: Rules,
        memory: EventMemory,
        submit: Callable[[Sequence[ImageJob]], Awaitable[object]],
        remove: Callable[[Sequence[str]], object] | None = None,
    ) -> None:
        self._rules = rules
        self._memory = memory
        self._submit = submit
        self._remove = remove

    async def take(self, events: Sequence[Event]) -> Taken:
        """See to these events. When this returns, the broker has all their jobs; when it raises,
        they have to be taken again, all of them, which repeats nothing.

        Raises:
            BrokerUnavailable: the broker, or the store, could not be reached.
            OSError: the index could not be changed.
        """
        taken = Taken()
        wanted: list[tuple[Event, list[ImageJob]]] = []
        for event in events:
            jobs = self._wanted(event, taken)
            if jobs is not None:
                wanted.append((event, jobs))
        sightings = await self._memory.see([event for event, _ in wanted])
        due = []
        for (event, jobs), sighting in zip(wanted, sightings, strict=True):
            match sighting:
                case Sighting.NEW:
                    due.append((event, jobs))
                case Sighting.REPEATED:
                    taken.events[Fate.REPEATED] += 1
                case Sighting.STALE:
                    taken.events[Fate.STALE] += 1
                    log.info("Passed over, a later event of the key has come: %s", _shown(event))
        jobs_due = [job for _, jobs in due for job in jobs]
        if jobs_due:
            await self._submit(jobs_due)
        gone = [event.image_ref for event, _ in due if event.kind == "removed"]
        if gone and self._remove is not None:
            await asyncio.to_thread(self._remove, gone)
        await self._memory.told([event for event, _ in due])
        for event, _ in due:
            taken.events[Fate.SUBMITTED if event.kind == "created" else Fate.REMOVED] += 1
        taken.jobs = len(jobs_due)
        return taken

    def _wanted(self, event: Event, taken: Taken) -> list[ImageJob] | None:
        """The jobs that an event asks for; None, and it is counted, where nothing is to be done."""
        if event.kind == "removed":
            if any(self._rules.matching(event)):
                return []
            taken.events[Fate.NOT_WANTED] += 1
            return None
        try:
            jobs = self._rules.jobs(event)
        except NoReference as exc:
            log.warning("No job can name this object, and it is passed over: %s", exc)
            taken.events[Fate.NO_REFERENCE] += 1
            return None
        if not jobs:
            taken.events[Fate.NOT_WANTED] += 1
            return None
        return jobs


def _shown(event: Event) -> str:
    return event.image_ref[:300]
