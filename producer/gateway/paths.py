"""What routes of jobs share: ids in paths, whose they are, what they may answer."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Path
from starlette.convertors import StringConvertor, register_url_convertor

from producer.contract import JOB_ID_PATTERN
from producer.gateway.access import Caller
from producer.gateway.problems import Code, Problem
from producer.gateway.service import Service
from producer.store import Record


class _JobIdConvertor(StringConvertor):
    """Ids may hold / but do not end with /events, which is a path of its own."""

    regex = r"(?!(?:.*/)?events$).+"


register_url_convertor("job", _JobIdConvertor())  # for the path of a job itself

JobIdInPath = Annotated[
    str,
    Path(
        pattern=JOB_ID_PATTERN,
        description="May hold / and :",
        examples=["3f2b8c1e5d7a4f609b1c2d3e4f5a6b7c"],
    ),
]

ACCESS = (Code.KEY_INVALID, Code.SCOPE_MISSING, Code.HOST_REFUSED, Code.RATE_LIMITED)
CHANGE = (*ACCESS, Code.ORIGIN_REFUSED)
BROKER = (Code.BROKER_UNAVAILABLE, Code.BROKER_FULL)
BODY = (Code.BODY_INVALID, Code.BODY_TIMEOUT, Code.BODY_TOO_LARGE, Code.MEDIA_TYPE_UNSUPPORTED)


async def seen(service: Service, job_id: str, caller: Caller) -> Record:
    """The record of a job that is the caller's to see.

    Raises:
        Problem: job_unknown.
    """
    record = await service.records.ask(job_id)
    if record is None or not caller.sees(record.owner):
        raise Problem(Code.JOB_UNKNOWN)
    return record


def job_path(job_id: str) -> str:
    """Where a job is."""
    return f"/v1/jobs/{quote(job_id, safe='/:@=+')}"


def batch_path(batch_id: str) -> str:
    """Where a batch is."""
    return f"/v1/batches/{quote(batch_id, safe='/:@=+')}"
