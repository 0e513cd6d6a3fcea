"""POST /v1/uploads: the route. `uploading.py` does the work."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.requests import ClientDisconnect

from producer.gateway.access import Caller, Requires
from producer.gateway.body import CLOSE
from producer.gateway.paths import CHANGE
from producer.gateway.problems import Code, Problem, documented
from producer.gateway.uploading import Uploaded, Uploads

router = APIRouter()


@router.post(
    "/v1/uploads",
    status_code=201,
    tags=["uploads"],
    summary="Keep an image where workers read it",
    responses=documented(
        Code.BODY_INVALID,
        *CHANGE,
        Code.BODY_TIMEOUT,
        Code.BODY_TOO_LARGE,
        Code.MEDIA_TYPE_UNSUPPORTED,
        Code.IMAGE_UNSUPPORTED_FORMAT,
        Code.IMAGE_EMPTY,
        Code.NOT_CONFIGURED,
        Code.UPLOADS_BUSY,
        Code.STORAGE_UNAVAILABLE,
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                },
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def post_upload(
    request: Request, _: Annotated[Caller, Depends(Requires("upload"))]
) -> Uploaded:
    """Send one image, as a form with one file or as the body itself.

    It is kept under a random name, whatever its own was; the answer's `image` is for a job. What is
    not whole when the sender hangs up, is too large or too slow, leaves nothing behind.
    """
    uploads: Uploads = request.app.state.service.uploads
    try:
        return await uploads.take(request)
    except ClientDisconnect:
        raise Problem(Code.BODY_INVALID, "The sender hung up.", headers=CLOSE) from None
