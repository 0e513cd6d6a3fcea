"""What outsiders say of all jobs, and what is wrong with it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.fates import Errand, Sender
from tests.chaos.hooks import Call
from tests.chaos.outsiders import End, Told

HEARD = 0.9
"""The share of results that a listener hears in spite of all outages, at least."""

FILED = frozenset({"job_poisoned", "schema_unsupported", "s3_unavailable"})
"""Those ends that a job here may have and that might be others another time: docs/architecture.md
has them among the dead letters."""

STATES = {"succeeded": "SUCCESS"}
"""What Celery's backend says of an outcome; of every other: FAILURE."""


@dataclass(frozen=True)
class Testimony:
    """What outsiders say.

    accepted  the jobs whose producers were told that they are submitted, by id; and since when
    records   how each ended
    told      the results that were published
    answers   what Celery's backend says to plain clients, by job of theirs
    letters   the codes of their dead letters; under "" those of messages that name no job
    again     how often each may have been sent before, because its producer heard nothing
    left      what the broker keeps when all is done, by key
    heard     what a receiver of callbacks was told, by job
    """

    accepted: Mapping[str, Errand]
    accepted_s: Mapping[str, float]
    records: Mapping[str, End | None]
    told: Mapping[str, Sequence[Told]]
    answers: Mapping[str, str | None]
    letters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    again: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    heard: Mapping[str, Sequence[Call]] = field(default_factory=dict)

    @property
    def lost(self) -> list[str]:
        """Jobs that have not ended."""
        return sorted(job_id for job_id in self.accepted if self.records.get(job_id) is None)

    @property
    def doubled(self) -> list[str]:
        """Jobs of which outsiders heard twice, or something else than is on record."""

        def once(job_id: str) -> bool:
            told, end = self.told.get(job_id, ()), self.records.get(job_id)
            return len(told) < 2 and all(
                end is None or one.finished_at == end.finished_at for one in told
            )

        return sorted(job_id for job_id in self.accepted if not once(job_id))

    @property
    def untold(self) -> list[str]:
        """Jobs with a callback that have ended, and no receiver heard of that."""
        return sorted(
            job_id
            for job_id, one in self.accepted.items()
            if one.callback
            and (end := self.records.get(job_id)) is not None
            and end.finished_at not in {call.finished_at for call in self.heard.get(job_id, ())}
        )

    @property
    def mistold(self) -> list[str]:
        """Jobs that a receiver heard of under several ids, or of another end than is on record, or
        without having been named in them."""

        def well(job_id: str) -> bool:
            calls, end = self.heard[job_id], self.records.get(job_id)
            return (
                job_id in self.accepted
                and self.accepted[job_id].callback
                and len({call.webhook_id for call in calls}) == 1
                and all(end is not None and call.finished_at == end.finished_at for call in calls)
            )

        return sorted(job_id for job_id in self.heard if not well(job_id))

    @property
    def deaf(self) -> bool:
        """Whether the listener missed more than outages explain, so that his word is no proof."""
        ended = [job_id for job_id, end in self.records.items() if end is not None]
        return sum(job_id in self.told for job_id in ended) < HEARD * len(ended)

    @property
    def misfiled(self) -> list[str]:
        """Jobs that were given up without one dead letter, or have one that is not of their end;
        and messages that were taken for malformed: nobody sent any."""
        wanted = {
            job_id: [end.outcome]
            for job_id, end in self.records.items()
            if end is not None and end.outcome in FILED
        }
        return sorted(
            f"{job_id or 'no job'} {list(self.letters.get(job_id, ()))}"
            for job_id in {*wanted, *self.letters}
            if list(self.letters.get(job_id, ())) != wanted.get(job_id, [])
        )

    @property
    def unanswered(self) -> list[str]:
        """Jobs of plain clients that Celery's backend does not know to have ended as they did."""
        ended = {
            job_id: end
            for job_id, one in self.accepted.items()
            if one.sender is not Sender.CLIENT and (end := self.records.get(job_id)) is not None
        }
        return sorted(
            f"{job_id} {end.outcome} {self.answers.get(job_id)}"
            for job_id, end in ended.items()
            if self.answers.get(job_id) != STATES.get(end.outcome, "FAILURE")
        )
