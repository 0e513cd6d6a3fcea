"""Routes for what watches over the gateway: is it alive, can it do its work, its metrics."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from producer.errors import BrokerUnavailable
from producer.gateway.access import Caller, Requires
from producer.gateway.open_jobs import open_jobs
from producer.gateway.paths import ACCESS
from producer.gateway.problems import Code, Fault, Problem, documented
from producer.gateway.service import Service

router = APIRouter(tags=["operations"])

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Health(BaseModel):
    """This process answers."""

    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def is_alive() -> Health:
    """Say that this process lives, whatever it can reach."""
    return Health()


@router.get("/readyz", responses=documented(Code.NOT_READY))
async def is_ready(request: Request) -> Health:
    """Say whether jobs would be worked on: the broker and the store answer, and a worker lives."""
    service: Service = request.app.state.service
    missing = [part async for part in _missing(service)]
    if missing:
        faults = [Fault(detail=part) for part in missing]
        raise Problem(Code.NOT_READY, " ".join(missing), errors=faults)
    return Health()


async def _missing(service: Service) -> AsyncIterator[str]:
    try:
        await service.client.reach()
    except BrokerUnavailable:
        yield "The broker does not answer."
    try:
        if not await service.workers():
            yield "No worker lives."
    except BrokerUnavailable:
        yield "The results store does not answer."


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **documented(*ACCESS),
    },
)
async def metrics(request: Request, _: Annotated[Caller, Depends(Requires("read"))]) -> Response:
    """Say how much this process has done, and how fast, and which jobs have not ended."""
    service: Service = request.app.state.service
    service.metrics.open(await open_jobs(service.store.redis, service.store.ledger))
    return Response(service.metrics.text(), headers={"Content-Type": PROMETHEUS})
