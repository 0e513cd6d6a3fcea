"""Routes of batches: many jobs in one request, counted together, with one callback at the end."""

import asyncio
import json
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from producer.callback import Callback
from producer.contract import JOB_ID_PATTERN, Job
from producer.gateway import examples, idempotency
from producer.gateway.accepted import Accepted, AnyJob, invalid
from producer.gateway.access import Caller, Requires
from producer.gateway.body import json_body, read_json
from producer.gateway.paths import ACCESS, BODY, BROKER, batch_path
from producer.gateway.problems import Code, Fault, Problem, documented, pointer
from producer.gateway.service import Service
from producer.gateway.views import BatchAccepted, BatchStatus
from producer.signing import Keys
from producer.submission import batches

router = APIRouter(tags=["batches"])


class BatchOfJobs(BaseModel):
    """Jobs of any tasks, and who is told when the last of them has ended."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    jobs: tuple[AnyJob, ...] = Field(min_length=1)
    callback: Callback | None = None


_BATCH = TypeAdapter(BatchOfJobs)


@router.post(
    "/v1/jobs:batch",
    status_code=202,
    response_model=BatchAccepted,
    responses=documented(
        *ACCESS,
        *BODY,
        *BROKER,
        Code.JOB_INVALID,
        Code.QUERY_INVALID,
        Code.IDEMPOTENCY_CONFLICT,
        Code.JOB_ID_TAKEN,
    ),
    openapi_extra={
        "parameters": [idempotency.PARAMETER],
        "requestBody": json_body("BatchOfJobs", examples.BATCHES),
    },
)
async def submit_batch(
    request: Request,
    caller: Annotated[Caller, Depends(Requires("submit"))],
) -> Response:
    """Submit many jobs. When one is invalid none is submitted, and errors say which.

    Where the answer is a 503 some of the jobs may have been submitted: with an Idempotency-Key the
    same request submits the rest.
    """
    service: Service = request.app.state.service
    settings = service.settings
    body = await read_json(request, settings.max_batch_bytes, settings.body_timeout_s)
    batch = await asyncio.to_thread(read_batch, body, service.accepted, settings.max_batch_jobs)
    batch_id = uuid.uuid4().hex
    key = idempotency.key_of(request.headers)
    if key is not None:
        batch_id = await service.ask(service.idempotency.name(caller, key, "batches", body))
    await _check_ids(service, caller, batch.jobs)
    service.access.spend(caller, len(batch.jobs) - 1)
    ready = await asyncio.to_thread(_ready, batch.jobs, batch_id, caller.id, settings.keys)
    await service.ask(service.store.open_batch(batch_id, batch.callback, caller.id))
    for jobs in ready:
        known = await service.ask(service.client.send(jobs))
        for job, before in zip(jobs, known, strict=True):
            if before is None:
                service.metrics.submitted(job.task)
    await service.ask(service.store.close_batch(batch_id))
    job_ids = [str(job.job_id) for jobs in ready for job in jobs]
    text = json.dumps({"batch_id": batch_id, "job_ids": job_ids})
    return Response(text, 202, {"Location": batch_path(batch_id)}, "application/json")


@router.get(
    "/v1/batches/{batch_id:path}",
    response_model=BatchStatus,
    responses=documented(*ACCESS, *BROKER, Code.BATCH_UNKNOWN, Code.QUERY_INVALID),
)
async def look_at_batch(
    request: Request,
    batch_id: Annotated[str, Path(pattern=JOB_ID_PATTERN, description="As Location said it")],
    caller: Annotated[Caller, Depends(Requires("read"))],
) -> Response:
    """Say how far the jobs of a batch are. Which they are, GET /v1/jobs?batch_id= lists."""
    service: Service = request.app.state.service
    batch = await service.ask(service.store.batch(batch_id))
    if batch is None or not caller.sees(batch.owner):
        raise Problem(Code.BATCH_UNKNOWN)
    text = BatchStatus.of(batch).model_dump_json(exclude_none=True)
    return Response(text, media_type="application/json")


def read_batch(body: bytes, accepted: Accepted, most: int) -> BatchOfJobs:
    """The batch that a body is.

    Raises:
        Problem: body_invalid; job_invalid, with the place of each fault; body_too_large.
    """
    try:
        batch = _BATCH.validate_json(body)
    except ValidationError as exc:
        raise invalid(exc, tagged_at=2) from None
    if len(batch.jobs) > most:
        raise Problem(Code.BODY_TOO_LARGE, f"A batch has at most {most} jobs.")
    faults: list[Fault] = []
    places: dict[str, int] = {}
    for index, job in enumerate(batch.jobs):
        faults += accepted.faults(job, ("jobs", index))
        if job.job_id is not None and places.setdefault(job.job_id, index) != index:
            where = pointer(("jobs", index, "job_id"))
            first = f"The same as that of /jobs/{places[job.job_id]}."
            faults.append(Fault(detail=first, pointer=where))
    if faults:
        raise Problem(Code.JOB_INVALID, errors=faults)
    return batch


def _ready(
    jobs: tuple[Job, ...], batch_id: str, owner: str | None, keys: Keys | None
) -> list[list[Job]]:
    def new(index: int, job: Job) -> dict[str, Any]:
        job_id = job.job_id or f"{batch_id}/{index}"
        return {"job_id": job_id, "batch_id": batch_id, "owner": owner}

    return batches([job.model_copy(update=new(index, job)) for index, job in enumerate(jobs)], keys)


async def _check_ids(service: Service, caller: Caller, jobs: tuple[Job, ...]) -> None:
    named = [(index, job.job_id) for index, job in enumerate(jobs) if job.job_id is not None]
    if not named:
        return
    records = await service.ask(service.store.get_many([job_id for _, job_id in named]))
    taken = [
        Fault(detail="The id is another's.", pointer=pointer(("jobs", index, "job_id")))
        for (index, _), record in zip(named, records, strict=True)
        if record is not None and not caller.sees(record.owner)
    ]
    if taken:
        raise Problem(Code.JOB_ID_TAKEN, errors=taken)
