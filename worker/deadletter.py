"""Dead letters: what was given up, kept for a while with its reason, to be looked at or replayed.

A Redis stream beside the results (`captionq:dead`), bounded by length and age. Jobs that end for
a fault of their own (no such image, an invalid job) are not in it: trying again would be vain.
"""

import json
from typing import Any

from producer.contract import JobFailed, JobResult
from producer.errors import TRANSIENT, ErrorCode
from worker.retry import SECOND_CHANCE

GIVEN_UP = TRANSIENT | SECOND_CHANCE | {ErrorCode.JOB_POISONED, ErrorCode.SCHEMA_UNSUPPORTED}
"""Codes of jobs that might end otherwise another time."""


def letter(
    result: JobResult, failure: JobFailed, payload: Any, queue: str | None, why: str
) -> dict[str, str] | None:
    """The fields of a failed job's dead letter; None when its failure is final.

    Args:
        payload: the job as it came, ready for JSON.
        why: what the worker's log says of it.
    """
    if failure.code not in GIVEN_UP:
        return None
    return {
        "job_id": result.job_id,
        "task": result.task,
        "code": failure.code.value,
        "reason": why[:1_000],
        "queue": queue or "",
        "attempts": str(result.attempts),
        "at": result.finished_at.isoformat(),
        "job": json.dumps(payload),
    }
