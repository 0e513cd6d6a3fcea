"""A job as it travels: the JSON object that its producer made, and perhaps signed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from producer.contract import JOB_MODELS, ErrorCode, Job, JobFailed, images_shown, parse_job
from producer.queues import TASK_NAMES, queue_for

IMAGES = "captionq_images"
"""Message header of chunks: how many images are behind it."""

TRACEPARENT = "traceparent"
"""Message header of traced jobs, and field of their records: W3C's."""

RECORDED = "recorded"
"""The one field of a message's job that stands for the job recorded under this id."""


@dataclass(frozen=True)
class WireJob:
    """One job's task and JSON object, which is sent as it is.

    Whoever sends a job once more sends this: a model that is read and written again has the fields
    and defaults of another version, and its signature no longer holds.
    """

    task: str
    body: Mapping[str, Any]
    traceparent: str = ""
    """The span that it is sent in, where there is one."""

    @classmethod
    def of(cls, job: Job, traceparent: str = "") -> Self:
        """A job of this process's own."""
        return cls(job.task, job.model_dump(mode="json"), traceparent)

    @classmethod
    def traced(cls, jobs: Sequence[Job], traceparents: Mapping[str, str]) -> Sequence[Job | Self]:
        """Jobs as they are sent, each in its span, by its id; unchanged where there are none."""
        if not traceparents:
            return jobs
        return [cls.of(job, traceparents.get(str(job.job_id), "")) for job in jobs]

    @classmethod
    def read(cls, task: str, text: str) -> Self:
        """A job as it was recorded.

        Raises:
            JobFailed: it is none, or of a contract that is unknown here.
        """
        if task not in TASK_NAMES:
            raise JobFailed(ErrorCode.JOB_INVALID, f"There is no task {task!r}.")
        parse_job(task, text)
        return cls(task, json.loads(text))

    @property
    def job_id(self) -> str | None:
        """Its own id."""
        return self.body.get("job_id")

    @property
    def name(self) -> str:
        """Celery's name of its task."""
        return TASK_NAMES[self.task]

    @property
    def queue(self) -> str:
        """Where its producer sent it: the queue of its lane, also for producers that name none."""
        lane = self.body.get("lane", JOB_MODELS[self.task].model_fields["lane"].default)
        return queue_for(self.task, self.body.get("model"), lane)

    @property
    def message(self) -> Mapping[str, Any]:
        """What its message carries: the whole job, or of a chunk, which is stored once, in its
        record, where that is."""
        return {RECORDED: self.job_id} if "images" in self.body else self.body

    @property
    def sending(self) -> dict[str, Any]:
        """Its message, as Celery's `send_task` takes it beside the task's name and the queue."""
        return {
            "kwargs": {"job": self.message},
            "kwargsrepr": self.shown,
            "headers": {
                **({IMAGES: len(self.body["images"])} if "images" in self.body else {}),
                **({TRACEPARENT: self.traceparent} if self.traceparent else {}),
            },
            "task_id": self.job_id,
            "ignore_result": True,
        }

    @property
    def shown(self) -> str:
        """What logs and events may show of it."""
        return images_shown(self.body) or ""

    @property
    def text(self) -> str:
        """Its JSON, as records keep it."""
        return json.dumps(self.body)
