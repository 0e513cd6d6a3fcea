"""Routes of batches: many jobs in one request, counted together, with one callback at the end."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from producer.callback import Callback
from producer.contract import JOB_ID_PATTERN, MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES, Job
from producer.errors import StoreUnavailable
from producer.gateway import examples, idempotency
from producer.gateway.accepted import NOT_JSON, Accepted, AnyJob
from producer.gateway.access import Caller, Requires
from producer.gateway.body import json_body, read_json
from producer.gateway.paths import ACCESS, BODY, BROKER, CHANGE, batch_path
from producer.gateway.problems import (
    MAX_ERRORS,
    Code,
    Fault,
    Problem,
    documented,
    faults_of,
    pointer,
)
from producer.gateway.service import Service
from producer.gateway.views import BatchAccepted, BatchStatus
from producer.signing import Keys
from producer.submission import batches
from producer.tracing import BATCH_ID

router = APIRouter(tags=["batches"])


class BatchOfJobs(BaseModel):
    """Jobs of any tasks, and who is told when the last of them has ended."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    jobs: tuple[AnyJob, ...] = Field(min_length=1)
    callback: Callback | None = None


class _Frame(BatchOfJobs):
    jobs: tuple[Any, ...] = Field(min_length=1)


_FRAME = TypeAdapter(_Frame)


@router.post(
    "/v1/jobs:batch",
    status_code=202,
    response_model=BatchAccepted,
    responses=documented(
        *CHANGE,
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
    same request submits the rest. So may all others be where an id became another's just now (409).
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
    job_ids = [str(job.job_id) for jobs in ready for job in jobs]
    taken = []
    async with _traced(service, request, batch_id, job_ids):
        for jobs in ready:
            known = await service.ask(service.client.send(jobs))
            for job, before in zip(jobs, known, strict=True):
                if before is None:
                    service.metrics.submitted(job.task)
                elif not caller.sees(before.owner):
                    taken.append(Fault(detail=f"{job.job_id} is another's.", pointer=""))
    await service.ask(service.store.close_batch(batch_id))
    if taken:
        raise Problem(Code.JOB_ID_TAKEN, errors=taken)
    text = json.dumps({"batch_id": batch_id, "job_ids": job_ids})
    return Response(text, 202, {"Location": batch_path(batch_id)}, "application/json")


@asynccontextmanager
async def _traced(
    service: Service, request: Request, batch_id: str, job_ids: Sequence[str]
) -> AsyncIterator[None]:
    """The block in which the jobs of a batch are submitted: of one trace, if of any."""
    tracing = service.client.tracing
    if tracing is None:
        yield
        return
    of_batch = {BATCH_ID: batch_id}
    with tracing.together("submit batch", job_ids, request.headers, of_batch) as traceparent:
        with suppress(StoreUnavailable):  # then its callback is of a trace of its own
            await service.ask(service.store.trace_batch(batch_id, traceparent))
        yield


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

    Its jobs are read one by one, until enough is at fault: pydantic would list every fault of a
    body at once, millions of them in gigabytes.

    Raises:
        Problem: body_invalid; job_invalid, with the place of each fault; body_too_large.
    """
    try:
        sent = from_json(body)
    except ValueError:
        raise Problem(Code.BODY_INVALID, NOT_JSON) from None
    given = sent.get("jobs") if isinstance(sent, dict) else None
    jobs = given if isinstance(given, list) else []
    if len(jobs) > most:
        raise Problem(Code.BODY_TOO_LARGE, f"A batch has at most {most} jobs.")
    faults: list[Fault] = []
    frame = _frame(sent | {"jobs": [0]} if jobs else sent, faults)
    read = tuple(_read(jobs, accepted, faults))
    if frame is None or faults:
        raise Problem(Code.JOB_INVALID, errors=faults)
    return BatchOfJobs.model_construct(jobs=read, callback=frame.callback)


def _frame(sent: Any, faults: list[Fault]) -> _Frame | None:
    """A batch beside its jobs; None where there are faults."""
    text = _text(sent)
    if len(text) > MAX_MESSAGE_BYTES:
        most = f"Beside its jobs a batch has at most {MAX_MESSAGE_BYTES} bytes."
        faults.append(Fault(detail=most, pointer=""))
        return None
    try:
        return _FRAME.validate_json(text)
    except ValidationError as exc:
        faults += faults_of(exc)
        return None


def _read(jobs: list[Any], accepted: Accepted, faults: list[Fault]) -> Iterator[Job]:
    """Those of the jobs that are some; what is wrong with others, and with ids that come twice, is
    told in `faults`, no more than an answer names."""
    places: dict[str, int] = {}
    for index, sent in enumerate(jobs):
        if len(faults) >= MAX_ERRORS:
            return
        at, text = ("jobs", index), _text(sent)
        if len(text) > MAX_CHUNK_BYTES:
            most = f"At most {MAX_CHUNK_BYTES} bytes of JSON are accepted of one job."
            faults.append(Fault(detail=most, pointer=pointer(at)))
            continue
        try:
            job = accepted.job(text, at)
        except Problem as exc:
            faults += exc.errors
            continue
        if job.job_id is not None and places.setdefault(job.job_id, index) != index:
            first = f"The same as that of /jobs/{places[job.job_id]}."
            faults.append(Fault(detail=first, pointer=pointer((*at, "job_id"))))
        yield job


def _text(sent: Any) -> bytes:
    return to_json(sent, inf_nan_mode="constants")


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
