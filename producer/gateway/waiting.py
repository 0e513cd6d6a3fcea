"""`Prefer: wait=N` (RFC 7240): the answer comes with the result, if that comes in time."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from producer.contract import JobResult
from producer.gateway.live import Kind, Watch
from producer.gateway.service import Service

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


PARAMETER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "wait=N: answer with the result (200) if it comes within N seconds (RFC 7240)",
    "example": "wait=10",
}
"""The header, for OpenAPI."""


def preferred_wait_s(headers: Sequence[str], most_s: float) -> int | None:
    """How long the sender would wait, in whole seconds, no longer than `most_s`; None for not.

    >>> preferred_wait_s(["respond-async, wait=10"], 30), preferred_wait_s(["wait=99"], 30)
    (10, 30)
    """
    found = _WAIT.search(",".join(headers))
    return None if found is None else min(int(found[1]), int(most_s))


async def result_within(
    service: Service, watch: Watch, job_id: str, timeout_s: float
) -> JobResult | None:
    """A job's result; None when it has not come in time, or this process is about to end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while (heard := await watch.get()).kind is not Kind.LEAVING:
                if heard.kind is Kind.DONE:
                    return JobResult.model_validate_json(heard.text)
                record = await service.records.ask(job_id)
                if record is not None and record.result is not None:
                    return record.result
    return None
