"""`POST /hooks/s3`: what storage services say of objects that came and went, over HTTP.

S3, MinIO, Ceph and EventBridge come with an API key of the scope `hooks`; SNS needs none, for its
messages are signed, and their topics are on a list. 200 is answered when the broker has all jobs;
until then 503, so that the sender repeats.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.requests import HTTPConnection

from producer.gateway.access import Caller, Requires
from producer.gateway.body import check_depth, read
from producer.gateway.hearing import Heard, Hearing
from producer.gateway.paths import ACCESS, BROKER, CHANGE
from producer.gateway.problems import Code, documented
from producer.gateway.sns import RAW_HEADER, TYPE_HEADER
from producer.s3_events import MAX_BODY_BYTES

EXAMPLES = {
    "eventbridge": {
        "value": {
            "detail-type": "Object Created",
            "source": "aws.s3",
            "detail": {
                "bucket": {"name": "photos"},
                "object": {"key": "in/cat.jpg", "size": 54_321, "etag": "b1946ac9"},
            },
        }
    },
    "ceph": {
        "value": {
            "Records": [
                {
                    "eventSource": "ceph:s3",
                    "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": "photos"}, "object": {"key": "in/cat.jpg"}},
                }
            ]
        }
    },
}


@asynccontextmanager
async def _opened(app: FastAPI) -> AsyncIterator[None]:
    app.state.hearing = await asyncio.to_thread(Hearing, app.state.service, app.state.rules)
    yield


router = APIRouter(tags=["hooks"], lifespan=_opened)


class Sender(Requires):
    """Who sends: a caller with the scope `hooks`, or SNS, whose signature is its key."""

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """See `Requires`."""
        raw = connection.headers.get(RAW_HEADER) == "true"  # which is not signed
        if TYPE_HEADER in connection.headers and not raw:
            return SNS
        return await super().__call__(connection)


SNS = Caller(None, frozenset())


@router.post(
    "/hooks/s3",
    response_model=Heard,
    responses=documented(
        *CHANGE,
        *BROKER,
        Code.BODY_INVALID,
        Code.BODY_TIMEOUT,
        Code.BODY_TOO_LARGE,
        Code.EVENT_UNKNOWN,
        Code.SIGNATURE_MISSING,
        Code.SIGNATURE_WRONG,
        Code.TOPIC_NOT_ALLOWED,
        Code.MESSAGE_REPLAYED,
        Code.SNS_UNAVAILABLE,
        Code.INDEX_UNAVAILABLE,
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "As the source writes it, whatever Content-Type it says",
            "content": {"application/json": {"schema": {}, "examples": EXAMPLES}},
        },
        "parameters": [
            {
                "name": TYPE_HEADER,
                "in": "header",
                "required": False,
                "description": "What SNS says of its messages: these need no key, but its "
                "signature and a topic on CAPTIONQ_SNS_TOPICS",
                "schema": {"type": "string"},
            }
        ],
    },
)
async def hear(request: Request, caller: Annotated[Caller, Depends(Sender("hooks"))]) -> Heard:
    """Take events on objects: of S3, MinIO, Ceph or EventBridge, or a message of SNS.

    Answered when the broker has the jobs of all of them. What is sent again does nothing again.
    """
    hearing: Hearing = request.app.state.hearing
    body = await read(request, MAX_BODY_BYTES, hearing.settings.body_timeout_s)
    await check_depth(body)
    return await (hearing.hear(body) if caller is SNS else hearing.take(body, caller.id))


@router.get("/hooks/s3", status_code=204, responses=documented(*ACCESS))
@router.head("/hooks/s3", include_in_schema=False, status_code=204)
async def ready(_: Annotated[Caller, Depends(Requires("hooks"))]) -> Response:
    """Say whether the key is good for hooks: MinIO, for one, asks before it sends anything."""
    return Response(status_code=204)
