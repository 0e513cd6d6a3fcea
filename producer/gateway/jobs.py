"""Routes of single jobs: submit, list, look, cancel."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.routing import Route

from producer.contract import Job, JobState
from producer.gateway import examples, idempotency, waiting
from producer.gateway.access import Caller, Requires
from producer.gateway.body import json_body, read_json
from producer.gateway.paths import ACCESS, BODY, BROKER, CHANGE, JobIdInPath, job_path, seen
from producer.gateway.problems import Code, Fault, Problem, documented
from producer.gateway.service import Service
from producer.gateway.views import JobList, JobStatus
from producer.store import Record
from producer.submission import cancellation, prepared

router = APIRouter(tags=["jobs"])

_MAY_SUBMIT = Requires("submit")


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=JobStatus,
    responses={
        200: {"model": JobStatus, "description": "The job has ended: its result is here"},
        **documented(
            *CHANGE,
            *BODY,
            *BROKER,
            Code.JOB_INVALID,
            Code.SCHEMA_UNSUPPORTED,
            Code.QUERY_INVALID,
            Code.IDEMPOTENCY_CONFLICT,
            Code.JOB_ID_TAKEN,
        ),
    },
    openapi_extra={
        "parameters": [idempotency.PARAMETER, waiting.PARAMETER],
        "requestBody": json_body("AnyJob", examples.JOBS),
    },
)
async def submit(request: Request, caller: Annotated[Caller, Depends(_MAY_SUBMIT)]) -> Response:
    """Submit a job. Where it is, Location says; an id that is known already is that job."""
    service: Service = request.app.state.service
    settings = service.settings
    body = await read_json(request, settings.max_job_bytes, settings.body_timeout_s)
    job = service.accepted.job(body)
    new = {"owner": caller.id}
    key = idempotency.key_of(request.headers)
    if key is not None:
        name = await service.ask(service.idempotency.name(caller, key, "jobs", body))
        new["job_id"] = job.job_id or name
    job = prepared(job.model_copy(update=new), service.settings.keys)
    wait_s = waiting.preferred_wait_s(request.headers.getlist("prefer"), settings.max_wait_s)
    if wait_s is None:
        return _answer(await _submitted(request, service, caller, job))
    async with service.live.watch(str(job.job_id)) as watch:
        status = await _submitted(request, service, caller, job)
        if not status.state.terminal:
            result = await waiting.result_within(service, watch, status.job_id, wait_s)
            if result is not None:
                status = status.ended(result)
    return _answer(status, {"Preference-Applied": f"wait={wait_s}"})


@router.get(
    "/v1/jobs",
    response_model=JobList,
    responses=documented(*ACCESS, *BROKER, Code.QUERY_INVALID),
)
async def newest(
    request: Request,
    caller: Annotated[Caller, Depends(Requires("read"))],
    state: Annotated[JobState | None, Query(description="Those alone that stand so")] = None,
    batch_id: Annotated[str | None, Query(max_length=200, description="Of this batch")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Most jobs of the page")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=20, description="next of the page before")
    ] = None,
) -> Response:
    """List the newest jobs of this key, the newest first; an admin's list has everyone's."""
    service: Service = request.app.state.service
    owner = None if caller.sees_all else caller.id
    try:
        page = await service.ask(
            service.store.list(
                state=state, owner=owner, batch_id=batch_id, before=cursor, limit=limit
            )
        )
    except ValueError as exc:
        raise Problem(
            Code.QUERY_INVALID, errors=[Fault(detail=str(exc), parameter="cursor")]
        ) from None
    return _json(JobList.of(page).model_dump_json(exclude_none=True))


@router.get(
    "/v1/jobs/{job_id:job}",
    response_model=JobStatus,
    responses={
        304: {"description": "It stands where If-None-Match says"},
        **documented(*ACCESS, *BROKER, Code.JOB_UNKNOWN, Code.QUERY_INVALID),
    },
)
async def look(
    request: Request,
    job_id: JobIdInPath,
    caller: Annotated[Caller, Depends(Requires("read"))],
    if_none_match: Annotated[str | None, Header(description="ETag of an earlier answer")] = None,
) -> Response:
    """Say where a job stands, and its result once it has ended."""
    record = await seen(request.app.state.service, job_id, caller)
    tag = _etag(record)
    if if_none_match is not None and tag in if_none_match:
        return Response(status_code=304, headers={"ETag": tag})
    return _json(JobStatus.of(record).text, {"ETag": tag})


@router.delete(
    "/v1/jobs/{job_id:job}",
    response_model=JobStatus,
    responses=documented(*CHANGE, *BROKER, Code.JOB_UNKNOWN, Code.QUERY_INVALID),
)
async def cancel(
    request: Request, job_id: JobIdInPath, caller: Annotated[Caller, Depends(Requires("submit"))]
) -> Response:
    """Cancel a job, and say what became of it: one that has ended stays as it is. A worker that
    runs it may go on; its result is not kept."""
    service: Service = request.app.state.service
    record = await seen(service, job_id, caller)
    result = record.result
    if result is None:
        result = await service.ask(service.store.finish(cancellation(record)))
    return _json(JobStatus.of(record).ended(result).text)


async def _submit_directly(request: Request) -> Response:
    request.scope["route"] = DIRECT
    return await submit(request, await _MAY_SUBMIT(request))


DIRECT = Route("/v1/jobs", _submit_directly, methods=["POST"], include_in_schema=False)
"""The busiest route without FastAPI, which would take as long as all the rest: the app asks it
first. It does what `submit` says, and FastAPI has `submit` for its OpenAPI."""


async def _submitted(request: Request, service: Service, caller: Caller, job: Job) -> JobStatus:
    tracing = service.client.tracing
    of_the_request = (
        nullcontext() if tracing is None else tracing.parented(str(job.job_id), request.headers)
    )
    with of_the_request:
        known = await service.submitter.ask(job)
    if known is None:
        service.metrics.submitted(job.task)
        return JobStatus.new(job)
    if not caller.sees(known.owner):
        raise Problem(Code.JOB_ID_TAKEN)
    return JobStatus.of(known)


def _answer(status: JobStatus, headers: Mapping[str, str] | None = None) -> Response:
    return _json(
        status.text,
        {"Location": job_path(status.job_id), **(headers or {})},
        200 if status.state.terminal else 202,
    )


def _etag(record: Record) -> str:
    return f'W/"{record.state}-{record.attempt}-{record.created_at.timestamp():.6f}"'


def _json(text: str, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    return Response(text, status, headers, "application/json")
