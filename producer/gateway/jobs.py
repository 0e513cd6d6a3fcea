"""Routes of single jobs: submit, look, cancel."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Request, Response

from producer.contract import JOB_ID_PATTERN, Job, utcnow
from producer.gateway.access import Caller, Requires
from producer.gateway.body import read_json
from producer.gateway.problems import Code, Problem, documented
from producer.gateway.service import Service
from producer.gateway.views import JobStatus
from producer.store import Record
from producer.submission import cancellation, prepared

router = APIRouter(tags=["jobs"])

JobIdInPath = Annotated[str, Path(pattern=JOB_ID_PATTERN, description="May hold / and :")]
BROKER = (Code.BROKER_UNAVAILABLE, Code.BROKER_FULL)
ACCESS = (Code.KEY_INVALID, Code.SCOPE_MISSING, Code.RATE_LIMITED)
BODY = (Code.BODY_INVALID, Code.BODY_TIMEOUT, Code.BODY_TOO_LARGE, Code.MEDIA_TYPE_UNSUPPORTED)


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=JobStatus,
    responses=documented(*ACCESS, *BODY, *BROKER, Code.JOB_INVALID, Code.JOB_ID_TAKEN),
)
async def submit(
    request: Request, caller: Annotated[Caller, Depends(Requires("submit"))]
) -> Response:
    """Submit a job."""
    service: Service = request.app.state.service
    settings = service.settings
    body = await read_json(request, settings.max_job_bytes, settings.body_timeout_s)
    job = owned(service.accepted.job(body), caller)
    known = await service.submitter.submit(job)
    if known is not None and not caller.sees(owner_of(known)):
        raise Problem(Code.JOB_ID_TAKEN)
    status = JobStatus.of(known) if known is not None else _queued(job)
    return Response(
        status.model_dump_json(exclude_none=True),
        200 if status.state.terminal else 202,
        {"Location": location(status.job_id)},
        "application/json",
    )


@router.get(
    "/v1/jobs/{job_id:path}",
    response_model=JobStatus,
    responses=documented(*ACCESS, *BROKER, Code.JOB_UNKNOWN, Code.QUERY_INVALID),
)
async def look(
    request: Request, job_id: JobIdInPath, caller: Annotated[Caller, Depends(Requires("read"))]
) -> Response:
    """Say where a job stands, and its result."""
    record = await seen(request.app.state.service, job_id, caller)
    return Response(
        JobStatus.of(record).model_dump_json(exclude_none=True), media_type="application/json"
    )


@router.delete(
    "/v1/jobs/{job_id:path}",
    response_model=JobStatus,
    responses=documented(*ACCESS, *BROKER, Code.JOB_UNKNOWN, Code.QUERY_INVALID),
)
async def cancel(
    request: Request, job_id: JobIdInPath, caller: Annotated[Caller, Depends(Requires("submit"))]
) -> Response:
    """Cancel a job; one that has ended stays as it is."""
    service: Service = request.app.state.service
    record = await seen(service, job_id, caller)
    result = record.result or await service.store.finish(cancellation(record))
    status = JobStatus.of(record.model_copy(update={"state": result.state, "result": result}))
    return Response(status.model_dump_json(exclude_none=True), media_type="application/json")


def owned(job: Job, caller: Caller) -> Job:
    """A job as it is sent, with an id, and its owner."""
    return prepared(job.model_copy(update={"owner": caller.id}))


async def seen(service: Service, job_id: str, caller: Caller) -> Record:
    """The record of a job that is the caller's to see.

    Raises:
        Problem: job_unknown.
    """
    record = await service.store.get(job_id)
    if record is None or not caller.sees(owner_of(record)):
        raise Problem(Code.JOB_UNKNOWN, f"No job {job_id!r} is known.")
    return record


def location(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{quote(job_id, safe='/:@')}"


def _queued(job: Job) -> JobStatus:
    return JobStatus.of(
        Record(
            job_id=str(job.job_id),
            task=job.task,
            state="queued",
            created_at=job.submitted_at or utcnow(),
        )
    )


def owner_of(record: Record) -> str | None:
    """Whose job a record is of."""
    return getattr(record, "owner", None)
