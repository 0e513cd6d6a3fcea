"""The gateway's OpenAPI: what FastAPI makes of the routes, completed.

Bodies of jobs are read by hand, fast and with their own errors, and so described here; so are keys.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from producer.gateway.accepted import NOT_THEIRS, AnyJob
from producer.gateway.access import Requires
from producer.gateway.batches import BatchOfJobs
from producer.gateway.problems import ProblemDetails

REFERENCE = "#/components/schemas/{model}"

SECURITY_SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as 'captionq keys new' prints it",
    },
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "The same key as the password, with any user name",
    },
}

DESCRIPTION = """\
Captions of images, and how well texts match them, worked out by a queue of workers.

Submit a job (`POST /v1/jobs`), and learn what became of it: ask for it, follow its events, have it
answer inline (`Prefer: wait=10`), or be called back. Errors are problem details (RFC 9457) whose
`type` says, here, what to do.
"""


def describe(app: FastAPI, routers: Sequence[APIRouter], *, keys_needed: bool) -> None:
    """Have the app, which includes these routers, say of itself what is true."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, routers, keys_needed)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI, routers: Sequence[APIRouter], keys_needed: bool) -> dict[str, Any]:
    described = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
    )
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= _of_bodies()
    schemas |= _models(ProblemDetails)
    components["securitySchemes"] = SECURITY_SCHEMES
    for operation in _operations(described):
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]  # FastAPI's own: here it is a problem, or never is
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    nobody: list[dict[str, list[str]]] = [] if keys_needed else [{}]
    for path, method, scope in _guarded(routers):
        operation = described["paths"][path][method]
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES] + nobody
        needed = "any key" if scope is None else f"a key with the scope `{scope}`"
        operation["description"] = f"{operation['description']}\n\nNeeds {needed}."
    return described


def _operations(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for path in described["paths"].values() for operation in path.values())


def _of_bodies() -> dict[str, Any]:
    """Schemas of jobs and batches as they are accepted: a task, and nothing that is not the
    sender's to set."""
    models = _models(BatchOfJobs) | {"AnyJob": _models(AnyJob, "AnyJob")["AnyJob"]}
    models["BatchOfJobs"]["properties"]["jobs"]["items"] = {
        "$ref": REFERENCE.format(model="AnyJob")
    }
    for variant in models["AnyJob"]["discriminator"]["mapping"].values():
        job = models[variant.rpartition("/")[2]]
        job["required"] = ["task", *job.get("required", ())]
        for name in NOT_THEIRS:
            del job["properties"][name]
    return models


def _models(model: Any, name: str | None = None) -> dict[str, Any]:
    schema = TypeAdapter(model).json_schema(ref_template=REFERENCE)
    return {**schema.pop("$defs", {}), name or model.__name__: schema}


def _guarded(routers: Sequence[APIRouter]) -> Iterator[tuple[str, str, str | None]]:
    """Path, method and scope of each route that needs a key."""
    routes = (route for router in routers for route in router.routes)
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for guard in _guards(route.dependant):
                for method in route.methods or ():
                    yield route.path_format, method.lower(), guard.scope


def _guards(dependant: Dependant) -> Iterator[Requires]:
    if isinstance(dependant.call, Requires):
        yield dependant.call
    for one in dependant.dependencies:
        yield from _guards(one)
