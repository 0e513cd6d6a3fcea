"""One message as Celery handed it over, whoever wrote it."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Self

from producer.contract import JOB_ID_PATTERN, public_uri
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
        own = payload.get("job_id") if isinstance(payload, dict) else None
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
    def image_ref(self) -> str | None:
        """The image's URI as it may be shown, if the payload has one."""
        image = self.payload.get("image") if isinstance(self.payload, dict) else None
        return public_uri(image) if isinstance(image, str) and _is_unicode(image) else None


def _is_unicode(text: str) -> bool:
    """Whether it can be stored: JSON may hold halves of surrogate pairs, UTF-8 may not."""
    return not re.search("[\ud800-\udfff]", text)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
