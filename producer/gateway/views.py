"""What the gateway says of jobs and batches."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from producer.batch import Batch
from producer.contract import Job, JobResult, JobState, utcnow
from producer.gateway import examples
from producer.listing import Page, Summary
from producer.store import Record


class JobStatus(BaseModel):
    """Where a job stands; with its result once it has ended. What is not known is left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.QUEUED, examples.ENDED]})

    job_id: str
    task: str
    state: JobState
    created_at: datetime
    started_at: datetime | None = Field(None, description="When the last attempt began")
    attempts: int = Field(0, description="Tries begun")
    batch_id: str | None = None
    result: JobResult | None = None

    @classmethod
    def of(cls, record: Record) -> "JobStatus":
        """What may be said of a record."""
        return cls.model_construct(
            job_id=record.job_id,
            task=record.task,
            state=record.state,
            created_at=record.created_at,
            started_at=record.started_at,
            attempts=record.attempt,
            batch_id=record.batch_id,
            result=record.result,
        )

    def ended(self, result: JobResult) -> Self:
        """The same job, which has ended since."""
        return self.model_copy(
            update={"state": result.state, "attempts": result.attempts, "result": result}
        )

    @classmethod
    def new(cls, job: Job) -> "JobStatus":
        """A job that has just been submitted."""
        return cls.model_construct(
            job_id=str(job.job_id),
            task=job.task,
            state=JobState.QUEUED,
            created_at=job.submitted_at or utcnow(),
            attempts=0,
            batch_id=job.batch_id,
        )

    @property
    def text(self) -> str:
        """Its JSON."""
        return self.model_dump_json(exclude_none=True)


class JobList(BaseModel):
    """Some of the newest jobs, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB_LIST]})

    jobs: list[Summary]
    next: str | None = Field(None, description="The cursor of the page behind this one")

    @classmethod
    def of(cls, page: Page) -> Self:
        """A page of the store's."""
        return cls(jobs=page.records, next=page.next)


class BatchAccepted(BaseModel):
    """A batch that was submitted."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"batch_id": "b1", "job_ids": ["b1/0", "shop/4711"]}]}
    )

    batch_id: str
    job_ids: list[str] = Field(description="One for each of its jobs, in their order")


class BatchStatus(BaseModel):
    """How far the jobs of a batch are."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH]})

    batch_id: str
    closed: bool = Field(description="Whether all of its jobs are submitted")
    total: int
    counts: dict[JobState, int] = Field(description="Jobs by the state that they are in")
    created_at: datetime
    finished_at: datetime | None = Field(None, description="When the last of its jobs had ended")

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """What may be said of a batch."""
        return cls(**batch.model_dump(exclude={"owner"}))
