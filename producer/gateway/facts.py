"""What there is to know of a gateway before asking it for anything: what its page needs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from producer.contract import JOB_MODELS
from producer.gateway.access import Caller, Requires
from producer.gateway.keys import Scope
from producer.gateway.paths import BROKER
from producer.gateway.problems import Code, documented
from producer.gateway.service import Service
from producer.queues import model_task

router = APIRouter(tags=["service"])


class Limits(BaseModel):
    """What is accepted at most."""

    job_bytes: int
    batch_bytes: int
    batch_jobs: int
    wait_s: float = Field(description="Of Prefer: wait")
    upload_bytes: int


class ServiceFacts(BaseModel):
    """What this gateway, and the workers that live now, can do."""

    workers: int
    tasks: list[str] = Field(description="Kinds of jobs that some worker's models answer")
    models: dict[str, list[str]] = Field(description="Ids of the workers' models, by their task")
    languages: list[str] = Field(description="BCP 47, those of language packs included")
    packs: list[str] = Field(description="What `adapter` may name")
    schemes: list[str] = Field(description="Where images may lie that jobs name")
    sinks: bool = Field(description="Whether jobs may name sinks")
    uploads: bool = Field(description="Whether there is POST /v1/uploads")
    keys: bool = Field(description="Whether API keys are needed")
    scopes: list[Scope] = Field(description="What the caller's key allows")
    limits: Limits


@router.get(
    "/v1/service",
    responses=documented(Code.KEY_INVALID, Code.HOST_REFUSED, Code.RATE_LIMITED, *BROKER),
)
async def service_facts(
    request: Request, caller: Annotated[Caller, Depends(Requires(None))]
) -> ServiceFacts:
    """Say what this service can do now, and what it accepts."""
    service: Service = request.app.state.service
    settings = service.settings
    workers = await service.workers()
    models: dict[str, set[str]] = {}
    for worker in workers:
        for task, model in worker.models.items():
            models.setdefault(task, set()).add(model)
    return ServiceFacts(
        workers=len(workers),
        tasks=[task for task in JOB_MODELS if model_task(task) in models],
        models={task: sorted(ids) for task, ids in sorted(models.items())},
        languages=sorted({one for worker in workers for one in worker.languages}),
        packs=sorted({one for worker in workers for one in worker.packs}),
        schemes=sorted(settings.schemes),
        sinks=settings.accept_sinks,
        uploads=settings.upload_to is not None,
        keys=not service.access.open,
        scopes=sorted(caller.scopes),
        limits=Limits(
            job_bytes=settings.max_job_bytes,
            batch_bytes=settings.max_batch_bytes,
            batch_jobs=settings.max_batch_jobs,
            wait_s=settings.max_wait_s,
            upload_bytes=settings.max_upload_bytes,
        ),
    )
