"""A job's way as server-sent events: queued, running, then its result.

    retry: 2000

    id: queued
    event: queued
    data: {"job_id": ..., "state": "queued", ...}        a JobStatus, on one line

The last event is `result`, whatever the job ended as; then the stream ends. An EventSource would
connect again: it says `Last-Event-ID: result`, and is answered with 204, which stops it (HTML,
section 9.2.3). A gateway that is about to end says `leaving`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from producer.contract import JobResult, JobState
from producer.errors import BrokerUnavailable
from producer.gateway.access import Caller, Requires
from producer.gateway.live import Heard, Kind, Watch
from producer.gateway.paths import ACCESS, BROKER, JobIdInPath, seen
from producer.gateway.problems import RETRY_AFTER_S, Code, Problem, documented
from producer.gateway.service import Service
from producer.gateway.views import JobStatus
from producer.store import Record

router = APIRouter(tags=["jobs"])

MEDIA_TYPE = "text/event-stream"
RETRY_MS = 2_000
RESULT = "result"
KEEP_ALIVE = b": still here\n\n"
LEAVING = b"event: leaving\ndata: {}\n\n"

EVENT = {
    "type": "object",
    "description": "One event of the stream, its fields as text/event-stream has them",
    "properties": {
        "retry": {"type": "integer"},
        "id": {"type": "string", "examples": ["queued", "running-1", "result"]},
        "event": {"type": "string", "enum": ["queued", "running", "result", "leaving"]},
        "data": {"type": "string", "description": "A JobStatus; of leaving, an empty object"},
    },
}


@router.get(
    "/v1/jobs/{job_id:path}/events",
    response_class=Response,
    responses={
        200: {
            "description": "The events so far, and those to come: " + __doc__.partition("\n")[0],
            "content": {MEDIA_TYPE: {"schema": EVENT}},
        },
        204: {"description": "This sender has had the result: it need not connect again"},
        **documented(
            *ACCESS, *BROKER, Code.JOB_UNKNOWN, Code.QUERY_INVALID, Code.STREAMS_EXHAUSTED
        ),
    },
)
async def events(
    request: Request,
    job_id: JobIdInPath,
    caller: Annotated[Caller, Depends(Requires("read"))],
    last_event_id: Annotated[str | None, Header(description="As EventSource says it")] = None,
) -> Response:
    """Follow a job: its state now, each change, and its result."""
    service: Service = request.app.state.service
    record = await seen(service, job_id, caller)
    if record.result is not None and last_event_id == RESULT:
        return Response(status_code=204)
    if service.streams >= service.settings.max_streams:
        raise Problem(Code.STREAMS_EXHAUSTED, headers={"Retry-After": str(RETRY_AFTER_S)})
    return Stream(service, record)


class Stream(StreamingResponse):
    """The events of a job, of which this is known. Counted from its beginning, before which nothing
    is waited for: as many as may are open, however many ask at once."""

    def __init__(self, service: Service, record: Record) -> None:
        super().__init__(stream(service, record), media_type=MEDIA_TYPE)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        self._service.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.streams -= 1


async def stream(service: Service, record: Record) -> AsyncIterator[bytes]:
    """The events of a job, as bytes."""
    async with service.live.watch(record.job_id) as watch:
        yield b"retry: %d\n\n" % RETRY_MS + event(record)
        said = record
        while not said.state.terminal:
            heard = await _next(watch, service.settings.keep_alive_s)
            if heard is None:
                yield KEEP_ALIVE
            elif heard.kind is Kind.LEAVING:
                yield LEAVING
                return
            now = await _now(service, said, heard)
            if (now.state, now.attempt) != (said.state, said.attempt):
                yield event(now)
                said = now


def event(record: Record) -> bytes:
    """Where a job stands, as one event."""
    name = RESULT if record.state.terminal else record.state.value
    at = f"{name}-{record.attempt}" if record.state is JobState.RUNNING else name
    data = JobStatus.of(record).model_dump_json(exclude_none=True)
    return f"id: {at}\nevent: {name}\ndata: {data}\n\n".encode()


async def _next(watch: Watch, timeout_s: float) -> Heard | None:
    try:
        async with asyncio.timeout(timeout_s):
            return await watch.get()
    except TimeoutError:
        return None


async def _now(service: Service, said: Record, heard: Heard | None) -> Record:
    if heard is not None and heard.kind is Kind.DONE:
        result = JobResult.model_validate_json(heard.text)
        return said.model_copy(
            update={"state": result.state, "result": result, "attempt": result.attempts}
        )
    try:
        return await service.records.ask(said.job_id) or said
    except BrokerUnavailable:  # it is asked again in a while
        return said
