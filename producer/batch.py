"""Jobs counted together: a batch."""

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from producer.result import JobState


class Batch(BaseModel):
    """How far the jobs of a batch are. Each counts once, in the state that it is in."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    owner: str | None = None
    closed: bool = False
    """Whether no more jobs come."""
    total: int = 0
    counts: dict[JobState, int]
    """Jobs by state, all states named."""
    created_at: datetime
    finished_at: datetime | None = None
    """When it was closed and the last of its jobs had ended; a job that is replayed later is
    counted, and this stays."""

    @classmethod
    def of(cls, batch_id: str, fields: dict[str, Any]) -> Self:
        """A batch as Redis keeps it; moments are milliseconds since 1970."""
        return cls(
            batch_id=batch_id,
            owner=fields.get("owner") or None,
            closed=fields.get("closed") == "1",
            total=int(fields.get("total", 0)),
            counts={state: int(fields.get(state.value, 0)) for state in JobState},
            created_at=_moment(fields["created_ms"]),
            finished_at=_moment(fields["finished_ms"]) if "finished_ms" in fields else None,
        )


def _moment(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1_000, UTC)
