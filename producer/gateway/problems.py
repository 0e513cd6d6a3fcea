"""What the gateway answers when it cannot do what was asked: RFC 9457, problem details.

    {"type": "/problems/job_invalid", "title": ..., "status": 422, "code": "job_invalid",
     "detail": ..., "errors": [{"pointer": "/options/num_beams", "detail": ...}]}

`type` is relative to the gateway, which says there what the code means.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from producer.errors import BrokerFull, BrokerUnavailable, JobFailed
from producer.gateway.codes import MEANING, Code

__all__ = [
    "MAX_ERRORS",
    "MEANING",
    "Code",
    "Fault",
    "Problem",
    "ProblemDetails",
    "documented",
    "faults_of",
    "install",
    "pointer",
]

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 100
"""Faults that one answer names."""

RETRY_AFTER_S = 2

_log = logging.getLogger("captionq.gateway")


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    detail: str
    pointer: str | None = Field(None, description="Where in the body, RFC 6901")
    parameter: str | None = Field(None, description="Which parameter of the path or query")


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["/problems/job_unknown"])
    title: str
    status: int
    code: str
    detail: str
    errors: list[Fault] | None = None


class Problem(Exception):  # noqa: N818 - RFC 9457's name
    """Answered as problem details.

    Args:
        code: decides the status, unless that is given.
        detail: what is wrong with this request; shown to whoever sent it.
        errors: the places at fault.
        headers: of the answer.
    """

    def __init__(
        self,
        code: Code,
        detail: str = "",
        *,
        status: int | None = None,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        meant, self.title, remedy = MEANING[code]
        self.code = code
        self.status = status or meant
        self.detail = detail or remedy
        self.errors = errors
        self.headers = dict(headers or {})
        super().__init__(f"{self.status} {code}: {self.detail}")

    @property
    def body(self) -> dict[str, Any]:
        """The problem details, as JSON says them."""
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code.value,
            "detail": self.detail,
        }
        if self.errors:
            listed = self.errors[:MAX_ERRORS]
            body["errors"] = [fault.model_dump(exclude_none=True) for fault in listed]
        return body

    def response(self) -> Response:
        """The answer."""
        return JSONResponse(self.body, self.status, self.headers, MEDIA_TYPE)


class Meaning(BaseModel):
    """What a code means."""

    code: str
    status: int
    title: str
    what_to_do: str


router = APIRouter(tags=["problems"])


def documented(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with these, for its OpenAPI."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title, remedy = MEANING[code]
        one = responses.setdefault(
            status,
            {
                "description": "",
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                        "examples": {},
                    }
                },
            },
        )
        one["description"] = "; ".join(filter(None, (one["description"], f"{code}: {title}")))
        one["content"][MEDIA_TYPE]["examples"][code.value] = {"value": Problem(code, remedy).body}
    return responses


def pointer(place: Sequence[int | str]) -> str:
    """A place in a JSON document by RFC 6901.

    >>> pointer(("jobs", 3, "a/b"))
    '/jobs/3/a~1b'
    """
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in place)


@router.get("/problems/{code}", responses=documented(Code.NOT_FOUND))
async def problem(code: Annotated[str, Path(examples=["job_invalid"])]) -> Meaning:
    """Say what a problem's `type` means, and what to do about it."""
    if code not in MEANING:
        raise Problem(Code.NOT_FOUND)
    status, title, what_to_do = MEANING[Code(code)]
    return Meaning(code=code, status=status, title=title, what_to_do=what_to_do)


def install(app: FastAPI) -> None:
    """Have the app answer every error as problem details."""
    for kind, answer in (
        (Problem, _own),
        (HTTPException, _of_http),
        (RequestValidationError, _of_parameters),
        (JobFailed, _of_job),
        (BrokerUnavailable, _of_broker),
    ):
        app.add_exception_handler(kind, answer)  # type: ignore[arg-type]


async def _own(_: Request, problem: Problem) -> Response:
    return problem.response()


async def _of_http(request: Request, exc: HTTPException) -> Response:
    codes = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 413: Code.BODY_TOO_LARGE}
    code = codes.get(exc.status_code, Code.HTTP_ERROR)
    detail = "" if code is not Code.HTTP_ERROR else HTTPStatus(exc.status_code).phrase
    headers = dict(exc.headers or {})
    if code is Code.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    return Problem(code, detail, status=exc.status_code, headers=headers).response()


def _allowed(request: Request) -> Iterator[str]:
    """The methods of all routes of a path: Starlette names those of the first."""
    for method in ("DELETE", "GET", "POST", "PUT"):
        asked = {**request.scope, "method": method}
        if any(route.matches(asked)[0] is Match.FULL for route in request.app.router.routes):
            yield method


async def _of_parameters(_: Request, exc: RequestValidationError) -> Response:
    faults = [
        Fault(detail=one["msg"], parameter=str(one["loc"][-1])) for one in exc.errors()[:MAX_ERRORS]
    ]
    return Problem(Code.QUERY_INVALID, errors=faults).response()


async def _of_job(_: Request, exc: JobFailed) -> Response:
    return Problem(Code(exc.code.value), exc.message).response()


async def _of_broker(_: Request, exc: BrokerUnavailable) -> Response:
    _log.warning("%s", exc)
    code = Code.BROKER_FULL if isinstance(exc, BrokerFull) else Code.BROKER_UNAVAILABLE
    return Problem(code, headers={"Retry-After": str(RETRY_AFTER_S)}).response()


def faults_of(
    exc: ValidationError, at: tuple[str | int, ...] = (), *, tagged: bool = False
) -> list[Fault]:
    """What is wrong with a JSON text, by pydantic.

    Args:
        exc: what pydantic says of it.
        at: its place in the body.
        tagged: whether it is a job of any task: the first step of each place is the task then, and
            no place in the body.
    """
    faults = []
    for one in exc.errors(include_url=False, include_input=False, include_context=False):
        if one["type"] == "default_factory_not_called":  # it follows from another fault
            continue
        place = one["loc"]
        if one["type"] == "union_tag_not_found" or one["type"] == "union_tag_invalid":
            place = (*place, "task")
        elif tagged:
            place = place[1:]
        faults.append(Fault(detail=one["msg"], pointer=pointer((*at, *place))))
    return faults
