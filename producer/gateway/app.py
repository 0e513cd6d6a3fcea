"""The gateway's app: routes and what they share, wired."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import metadata

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from producer.event_rules import Rules
from producer.gateway import (
    batches,
    events,
    facts,
    health,
    hooks,
    jobs,
    page,
    problems,
    uploads,
)
from producer.gateway.edge import Edge
from producer.gateway.openapi import describe
from producer.gateway.service import Service
from producer.gateway.settings import GatewaySettings


def create_app(
    settings: GatewaySettings | None = None, routers: Iterable[APIRouter] = ()
) -> FastAPI:
    """An app of these settings, or the environment's; with `routers` besides its own.

    Raises:
        pydantic.ValidationError: a setting cannot be used.
        BadKeysFile: the file of the API keys cannot be used.
        BadRules: that of the rules for what is uploaded cannot.
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
        title="captionq",
        version=_version(),
        docs_url=None,  # its pages load from elsewhere; /openapi.json is for tools of one's own
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    app.state.rules = Rules.of_settings(service.settings)
    problems.install(app)
    included = (
        jobs.router,
        events.router,
        batches.router,
        facts.router,
        hooks.router,
        health.router,
        problems.router,
        uploads.router,
        page.router,
        *routers,
    )
    for router in included:
        app.include_router(router)
    app.router.routes.insert(0, jobs.DIRECT)
    describe(app, included, keys_needed=not service.access.open)
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer"],
            expose_headers=["Location", "Preference-Applied", "RateLimit", "Retry-After"],
        )
    app.add_middleware(Edge, metrics=service.metrics)
    return app


def _version() -> str:
    try:
        return metadata.version("captionq")
    except metadata.PackageNotFoundError:  # run from its source tree
        return "0"
