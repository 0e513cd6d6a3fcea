"""The gateway's app: routes and what they share, wired."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from producer.gateway import batches, events, facts, health, jobs, problems
from producer.gateway.edge import Edge
from producer.gateway.service import Service
from producer.gateway.settings import GatewaySettings


def create_app(
    settings: GatewaySettings | None = None, routers: Iterable[APIRouter] = ()
) -> FastAPI:
    """An app of these settings, or the environment's; with `routers` besides its own.

    Raises:
        pydantic.ValidationError: a setting cannot be used.
        BadKeysFile: the file of the API keys cannot be used.
    """
    service = Service(settings or GatewaySettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="captionq", docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.state.service = service
    problems.install(app)
    own = (jobs.submitting, events.router, jobs.router, batches.router, facts.router, health.router)
    for router in (*own, *routers):  # the busiest first; events before jobs, whose ids may hold /
        app.include_router(router)
    app.add_middleware(Edge, metrics=service.metrics)
    return app
