"""One line in the log for each job, at its end."""

import logging
from collections.abc import Mapping

from producer.contract import JobResult, JobState

__all__ = ["KEYS", "log_ended"]

log = logging.getLogger(__name__)

ENDED = "job ended"

KEYS = (
    "job_id", "task", "state", "code", "attempts", "images", "failed_images", "queue_ms",
    "fetch_ms", "decode_ms", "infer_ms", "batch_size", "model", "revision", "pack", "dead_letter",
)  # fmt: skip
"""The keys of a job's line beside those of every line; each is there, and null where a job has no
such thing. docs/metrics.md says what they are."""


def log_ended(result: JobResult, letter: Mapping[str, str] | None) -> None:
    """Say what became of a job: nothing of what it was about."""
    if not log.isEnabledFor(logging.INFO):
        return
    counts, timings, model = result.counts, result.timings, result.model
    succeeded = result.state is JobState.SUCCEEDED
    failed = (
        int(not succeeded)
        if counts is None
        else sum(counts.values()) - counts.get(JobState.SUCCEEDED.value, 0)
    )
    values = (
        result.job_id,
        result.task,
        result.state.value,
        result.error.code.value if result.error else None,
        result.attempts,
        1 if counts is None else sum(counts.values()),
        failed,
        timings and timings.queue_ms,
        timings and timings.fetch_ms,
        timings and timings.decode_ms,
        timings and timings.infer_ms,
        timings and timings.batch_size,
        model and model.id,
        model and model.revision,
        result.pack and result.pack.name,
        letter is not None,
    )
    log.info(ENDED, extra=dict(zip(KEYS, values, strict=True)))
