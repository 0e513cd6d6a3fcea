"""Events in, jobs out: what listeners and the gateway's hook have in common."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from producer.contract import ImageJob, Job
from producer.errors import BrokerUnavailable
from producer.event_memory import Remembers, Sighting
from producer.event_rules import Event, NoReference, Rules
from producer.tracing import Tracing

log = logging.getLogger(__name__)

Prepare = Callable[[Sequence[Event]], Awaitable[Sequence[Event]]]


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
        found = [(fate, n) for fate, n in self.events.most_common() if n]
        counts = [f"{n:,} {fate.value.replace('_', ' ')}" for fate, n in found]
        return f"{self.events.total():,} events ({', '.join(counts) or 'none'}), {self.jobs:,} jobs"

    def document(self) -> dict[str, int]:
        """What was taken, for programs."""
        return {fate.value: self.events[fate] for fate in Fate} | {"jobs": self.jobs}


class Intake:
    """Takes events: asks the rules, passes over what came before or too late, submits the rest.

    Args:
        submit: hands jobs to the broker, all of them; raises BrokerUnavailable.
        prepare: makes what came ready to be named in jobs, such as copied to where workers read
            it; returns what is ready.
        remove: takes images out of the index, all versions of those that name none; blocks. None
            where an object's removal changes nothing.
    """

    def __init__(
        self,
        rules: Rules,
        memory: Remembers,
        submit: Callable[[Sequence[ImageJob]], Awaitable[object]],
        *,
        prepare: Prepare | None = None,
        remove: Callable[[Sequence[str]], object] | None = None,
    ) -> None:
        self._rules = rules
        self._memory = memory
        self._submit = submit
        self._prepare = prepare
        self._remove = remove

    async def take(self, events: Sequence[Event]) -> Taken:
        """See to these events. When this returns, the broker has all their jobs; when it raises,
        they have to be taken again, all of them, which repeats nothing.

        Raises:
            BrokerUnavailable: the broker, or the store, could not be reached.
            OSError: the index could not be changed, or what came not be copied.
        """
        taken = Taken()
        wanted = [event for event in events if any(self._rules.matching(event))]
        taken.events[Fate.NOT_WANTED] += len(events) - len(wanted)
        sightings = await self._memory.see(wanted)
        taken.events[Fate.REPEATED] += sightings.count(Sighting.REPEATED)
        for event, sighting in zip(wanted, sightings, strict=True):
            if sighting is Sighting.STALE:
                taken.events[Fate.STALE] += 1
                log.info("Passed over, a later event of the key has come: %s", _shown(event))
        new = [
            event
            for event, sighting in zip(wanted, sightings, strict=True)
            if sighting is Sighting.NEW
        ]
        due = list({(e.kind, e.bucket, e.key, e.content): e for e in new}.values())
        taken.events[Fate.REPEATED] += len(new) - len(due)
        came = [event for event in due if event.kind == "created"]
        try:
            await self._caption(came, taken)
        except BrokerUnavailable:
            with suppress(BrokerUnavailable):
                await self._memory.untold(came)
            raise
        gone = [event for event in due if event.kind == "removed"]
        if gone and self._remove is not None:
            await asyncio.to_thread(self._remove, [event.image_ref for event in gone])
        taken.events[Fate.REMOVED] += len(gone)
        await self._memory.told(due)
        return taken

    async def _caption(self, came: Sequence[Event], taken: Taken) -> None:
        ready = came if self._prepare is None or not came else await self._prepare(came)
        taken.events[Fate.NO_REFERENCE] += len(came) - len(ready)
        jobs: list[ImageJob] = []
        for event in ready:
            try:
                jobs += self._rules.jobs(event)
            except NoReference as exc:
                log.warning("No job can name this object, and it is passed over: %s", exc)
                taken.events[Fate.NO_REFERENCE] += 1
            else:
                taken.events[Fate.SUBMITTED] += 1
        if jobs:
            await self._submit(jobs)
        taken.jobs = len(jobs)


def events_traced(tracing: Tracing | None, jobs: Sequence[Job]) -> AbstractContextManager[Any]:
    """The block in which the jobs of some events are submitted: of one trace, if of any."""
    if tracing is None:
        return nullcontext()
    return tracing.together("submit events", [str(job.job_id) for job in jobs])


def _shown(event: Event) -> str:
    return event.image_ref[:300]
