"""What the gateway answers when it cannot do what was asked: RFC 9457, problem details.

    {"type": "/problems/job_invalid", "title": ..., "status": 422, "code": "job_invalid",
     "detail": ..., "errors": [{"pointer": "/options/num_beams", "detail": ...}]}

`type` is relative to the gateway, which says there what the code means.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from producer.errors import BrokerFull, BrokerUnavailable, JobFailed

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 100
"""Faults that one answer names."""

RETRY_AFTER_S = 2

_log = logging.getLogger("captionq.gateway")


class Code(StrEnum):
    """What went wrong; the value is the spelling on the wire."""

    BODY_INVALID = "body_invalid"
    QUERY_INVALID = "query_invalid"
    JOB_INVALID = "job_invalid"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    KEY_INVALID = "key_invalid"
    SCOPE_MISSING = "scope_missing"
    NOT_FOUND = "not_found"
    JOB_UNKNOWN = "job_unknown"
    BATCH_UNKNOWN = "batch_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    JOB_ID_TAKEN = "job_id_taken"
    BODY_TOO_LARGE = "body_too_large"
    MEDIA_TYPE_UNSUPPORTED = "media_type_unsupported"
    RATE_LIMITED = "rate_limited"
    HEAD_TOO_LARGE = "head_too_large"
    INTERNAL_ERROR = "internal_error"
    BROKER_UNAVAILABLE = "broker_unavailable"
    BROKER_FULL = "broker_full"
    STREAMS_EXHAUSTED = "streams_exhausted"
    EVENT_UNKNOWN = "event_unknown"
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_WRONG = "signature_wrong"
    TOPIC_NOT_ALLOWED = "topic_not_allowed"
    MESSAGE_REPLAYED = "message_replayed"
    SNS_UNAVAILABLE = "sns_unavailable"
    INDEX_UNAVAILABLE = "index_unavailable"
    NOT_READY = "not_ready"
    NOT_CONFIGURED = "not_configured"
    IMAGE_UNSUPPORTED_FORMAT = "image_unsupported_format"
    IMAGE_EMPTY = "image_empty"
    ORIGIN_REFUSED = "origin_refused"
    UPLOADS_BUSY = "uploads_busy"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    HTTP_ERROR = "http_error"


MEANING: dict[Code, tuple[int, str, str]] = {
    Code.BODY_INVALID: (400, "The body cannot be read", "Send one JSON object in UTF-8."),
    Code.QUERY_INVALID: (422, "A parameter is not valid", "See errors for which, and why."),
    Code.JOB_INVALID: (
        422,
        "The job does not follow the contract",
        "See errors for the fields at fault. Nothing was submitted.",
    ),
    Code.SCHEMA_UNSUPPORTED: (
        422,
        "The job is of a newer contract version",
        "Send schema_version 1, or leave it out.",
    ),
    Code.IDEMPOTENCY_CONFLICT: (
        422,
        "The Idempotency-Key was used for another body",
        "Use a new key for a new request.",
    ),
    Code.KEY_INVALID: (
        401,
        "No valid API key",
        "Send Authorization: Bearer cq_..., or HTTP Basic with the key as password.",
    ),
    Code.SCOPE_MISSING: (
        403,
        "The API key does not allow this",
        "Ask the operator for a key with the scope that detail names.",
    ),
    Code.NOT_FOUND: (404, "There is nothing here", "See /openapi.json for what there is."),
    Code.JOB_UNKNOWN: (
        404,
        "No such job",
        "It was never submitted with this key, or its record has expired.",
    ),
    Code.BATCH_UNKNOWN: (
        404,
        "No such batch",
        "It was never submitted with this key, or its record has expired.",
    ),
    Code.METHOD_NOT_ALLOWED: (405, "Not with this method", "See Allow for those there are."),
    Code.BODY_TIMEOUT: (408, "The body came too slowly", "Send it again, faster."),
    Code.JOB_ID_TAKEN: (
        409,
        "The job id is another's",
        "Choose another job_id, or leave it out.",
    ),
    Code.BODY_TOO_LARGE: (
        413,
        "The body is too large",
        "detail says how many bytes are accepted. Many jobs go to /v1/jobs:batch.",
    ),
    Code.MEDIA_TYPE_UNSUPPORTED: (
        415,
        "The body is of another kind",
        "Send the Content-Type that detail names.",
    ),
    Code.RATE_LIMITED: (429, "Too many requests with this key", "Wait as Retry-After says."),
    Code.HEAD_TOO_LARGE: (431, "The request's head is too large", "Send fewer, shorter headers."),
    Code.INTERNAL_ERROR: (
        500,
        "The gateway failed on this request",
        "The fault is in its log. Try again; tell the operator if it persists.",
    ),
    Code.BROKER_UNAVAILABLE: (
        503,
        "The broker or the results store cannot be reached",
        "Try again as Retry-After says, with the same Idempotency-Key or job_id.",
    ),
    Code.BROKER_FULL: (
        503,
        "The broker has no room for more",
        "Try again when workers have taken some of it, as Retry-After says.",
    ),
    Code.STREAMS_EXHAUSTED: (
        503,
        "Too many streams of events are open",
        "Try again as Retry-After says, or ask for the job itself.",
    ),
    Code.EVENT_UNKNOWN: (
        422,
        "The body is no event of a known source",
        "detail says what was seen; docs/uploads.md, which sources there are.",
    ),
    Code.SIGNATURE_MISSING: (
        401,
        "The message of SNS is not signed",
        "Messages of raw delivery are not: send them with an API key.",
    ),
    Code.SIGNATURE_WRONG: (
        401,
        "The message of SNS is not what was signed",
        "Only SNS itself can send it.",
    ),
    Code.TOPIC_NOT_ALLOWED: (
        403,
        "The topic of SNS is not on the list",
        "Ask the operator to add its ARN to CAPTIONQ_SNS_TOPICS.",
    ),
    Code.MESSAGE_REPLAYED: (
        403,
        "The message of SNS is an old one",
        "It was published too long ago, or in the future, and may be a replay.",
    ),
    Code.SNS_UNAVAILABLE: (
        503,
        "Amazon SNS could not be asked",
        "Try again as Retry-After says: its certificate, or the confirmation, was not to be had.",
    ),
    Code.INDEX_UNAVAILABLE: (
        503,
        "The vector index cannot be changed",
        "Try again as Retry-After says.",
    ),
    Code.NOT_READY: (503, "Not ready", "detail says what is missing."),
    Code.NOT_CONFIGURED: (
        501,
        "This gateway is not set up for it",
        "Ask the operator; detail names the setting.",
    ),
    Code.IMAGE_UNSUPPORTED_FORMAT: (
        415,
        "The file does not begin as an image",
        "Send a JPEG, PNG, WebP, GIF, BMP, AVIF or HEIC.",
    ),
    Code.IMAGE_EMPTY: (422, "The file is empty", "Send the bytes of an image."),
    Code.ORIGIN_REFUSED: (
        403,
        "Another site's page may not do this",
        "Ask the operator to allow its origin (ALLOWED_ORIGINS).",
    ),
    Code.UPLOADS_BUSY: (503, "Too many uploads at a time", "Try again as Retry-After says."),
    Code.STORAGE_UNAVAILABLE: (
        503,
        "The image could not be kept",
        "Nothing of it is left. Try again as Retry-After says; tell the operator if it persists.",
    ),
    Code.HTTP_ERROR: (400, "The request was refused", "See the status."),
}
"""Of each code: the status it comes with, its title, and what to do."""


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


def faults_of(exc: ValidationError, tagged_at: int | None = None) -> list[Fault]:
    """What is wrong with a body, by pydantic.

    `tagged_at` is how many steps of a place lead to a job of any task, whose next step is the task
    itself: that is no place in the body.
    """
    faults = []
    for one in exc.errors(include_url=False, include_input=False, include_context=False):
        if one["type"] == "default_factory_not_called":  # it follows from another fault
            continue
        place = one["loc"]
        if one["type"] == "union_tag_not_found" or one["type"] == "union_tag_invalid":
            place = (*place, "task")
        elif tagged_at is not None:
            place = place[:tagged_at] + place[tagged_at + 1 :]
        faults.append(Fault(detail=one["msg"], pointer=pointer(place)))
    return faults
