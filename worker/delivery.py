"""One message as Celery handed it over, whoever wrote it."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Self

from producer.contract import JOB_ID_PATTERN, images_shown
from producer.terms import Terms
from producer.wire import RECORDED
from worker.retry import SCHEMA_ATTEMPTS

BOUNCES = "captionq_bounces"
"""Message header: how often the message went back because its contract is newer than a worker's."""


class Delivery(NamedTuple):
    """One message as Celery handed it over. `bounces` of its tries ended for its newer contract."""

    payload: Any
    job_id: str
    attempt: int
    bounces: int
    queue: str | None
    worker: str

    @classmethod
    def of(cls, request: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        """Read the job as first positional or as keyword argument `job`; other arguments refuse it.

        A job without a usable id of its own takes Celery's task id. Never raises.
        """
        call = (*args, *(kwargs[name] for name in kwargs if name == "job"))
        payload = call[0] if len(call) == 1 == len(args) + len(kwargs) else None
        if isinstance(payload, str):
            with suppress(ValueError, RecursionError):
                payload = json.loads(payload)
        named = RECORDED if _is_recorded(payload) else "job_id"
        own = payload.get(named) if isinstance(payload, dict) else None
        usable = isinstance(own, str) and re.fullmatch(JOB_ID_PATTERN, own)
        bounces = min(SCHEMA_ATTEMPTS, _count((request.headers or {}).get(BOUNCES)))
        return cls(
            payload=payload,
            job_id=str(own) if usable else str(request.id),
            attempt=max(1, _count(request.retries) + 1 - bounces),
            bounces=bounces,
            queue=(request.delivery_info or {}).get("routing_key"),
            worker=str(request.hostname),
        )

    @property
    def retries(self) -> int:
        """How often the message was sent again: what it says of itself, where that can be."""
        return self.attempt - 1 + self.bounces

    @property
    def recorded(self) -> bool:
        """Whether the message says no more of its job than that it lies in the record of its id."""
        return _is_recorded(self.payload)

    @property
    def terms(self) -> Terms:
        """What the payload says of its callback, batch and owner, be it valid or not."""
        return Terms.read(self.job_id, self.payload)

    @property
    def image_ref(self) -> str | None:
        """What may be shown of its images, if the payload names any."""
        return images_shown(self.payload)


def _is_recorded(payload: Any) -> bool:
    return isinstance(payload, dict) and set(payload) == {RECORDED}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
