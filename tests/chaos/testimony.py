"""What outsiders say of all jobs, and what is wrong with it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.fates import Errand, Sender
from tests.chaos.outsiders import End, Told

STATES = {"succeeded": "SUCCESS"}
"""What Celery's backend says of an outcome; of every other: FAILURE."""


@dataclass(frozen=True)
class Testimony:
    """What outsiders say.

    accepted  the jobs whose producers were told that they are submitted, by id; and since when
    records   how each ended
    told      the results that were published
    answers   what Celery's backend says to plain clients, by job of theirs
    """

    accepted: Mapping[str, Errand]
    accepted_s: Mapping[str, float]
    records: Mapping[str, End | None]
    told: Mapping[str, Sequence[Told]]
    answers: Mapping[str, str | None]

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
