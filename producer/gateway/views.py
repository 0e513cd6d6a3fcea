"""What the gateway says of jobs."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from producer.contract import JobResult, JobState
from producer.store import Record


class JobStatus(BaseModel):
    """Where a job stands; with its result once it has ended."""

    job_id: str
    task: str
    state: JobState
    created_at: datetime
    started_at: datetime | None = Field(None, description="When the last attempt began")
    attempts: int = Field(0, description="Tries begun")
    result: JobResult | None = None

    @classmethod
    def of(cls, record: Record) -> Self:
        """What may be said of a record."""
        return cls(
            job_id=record.job_id,
            task=record.task,
            state=record.state,
            created_at=record.created_at,
            started_at=record.started_at,
            attempts=record.attempt,
            result=record.result,
        )
