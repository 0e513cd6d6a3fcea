"""What a job was submitted under, as its record keeps it: who is told, its batch, its owner."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pydantic import ValidationError

from producer.callback import ID_PATTERN, Callback
from producer.contract import JOB_ID_PATTERN, Job


class Terms(NamedTuple):
    """The callback as records keep it (see `due`), the batch's id, the owner's; each "" if none."""

    callback: str = ""
    batch_id: str = ""
    owner: str = ""

    @classmethod
    def of(cls, job: Job) -> Self:
        """A job's own; it has an id."""
        told = due(job.callback, f"job {job.job_id}") if job.callback else ""
        return cls(told, job.batch_id or "", job.owner or "")

    @classmethod
    def read(cls, job_id: str, payload: Any, replayed: str = "") -> Self:
        """A job's JSON object's, whatever else it holds: one that is invalid ends as well, and who
        is named in it is told. What is no callback, batch or owner counts as none.

        Args:
            job_id: under which it is recorded.
            replayed: the dead letter that it was queued from again, if it was: that it ends once
                more is told under another id.
        """
        named: Mapping[str, Any] = payload if isinstance(payload, dict) else {}
        told = ""
        if named.get("callback") is not None:
            try:
                callback = Callback.model_validate_json(json.dumps(named["callback"]))
                told = due(callback, f"job {job_id} {replayed}".rstrip())
            except (ValidationError, TypeError, ValueError, RecursionError):
                told = ""
        return cls(told, _id(named, "batch_id", JOB_ID_PATTERN), _id(named, "owner", ID_PATTERN))


def due(callback: Callback, event: str) -> str:
    """A callback as records keep it: its JSON, and `id`, the webhook-id under which it tells of
    this event: the same whoever computes it.

    Standard Webhooks signs `id.timestamp.body`, so an id must hold no full stop: whoever chooses
    the names of jobs could else move it.
    """
    digest = hashlib.sha256(event.encode()).hexdigest()[:32]
    return json.dumps({"id": f"msg_{digest}", **callback.model_dump(mode="json")})


def _id(named: Mapping[str, Any], name: str, pattern: str) -> str:
    value = named.get(name)
    return value if isinstance(value, str) and re.fullmatch(pattern, value) else ""
