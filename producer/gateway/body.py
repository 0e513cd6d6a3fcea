"""Bodies of requests, counted while they come: never longer, later or deeper than allowed."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from producer.gateway.problems import Code, Problem

MAX_DEPTH = 16
"""Of arrays and objects in one another."""

DISCARD_S = 1.0
"""How long what comes of a body that is too long is read and dropped: a sender who is still
writing would otherwise see the connection break before the answer."""

JSON = "application/json"
CLOSE = {"Connection": "close"}

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A string that does not end is one up to the end, and no step is tried again (possessive): the
time that this takes grows as the text does, whatever is in it."""

MANY_BYTES = 65_536
"""What takes longer to look through than others should wait for."""

_STEP = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def json_body(schema: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    """`requestBody` of a route that reads its body by `read_json`, for its OpenAPI."""
    return {
        "required": True,
        "content": {
            JSON: {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "examples": {name: {"value": value} for name, value in examples.items()},
            }
        },
    }


async def read_json(request: Request, most: int, timeout_s: float) -> bytes:
    """The JSON text of a request, which may still be none.

    Raises:
        Problem: media_type_unsupported, body_too_large, body_timeout, or body_invalid for one
            that is nested too deeply.
    """
    expect_type(request, JSON)
    body = await read(request, most, timeout_s)
    await check_depth(body)
    return body


async def check_depth(body: bytes) -> None:
    """Check that a body is not nested too deeply; a long one in a thread.

    Raises:
        Problem: body_invalid.
    """
    long = len(body) > MANY_BYTES
    if await asyncio.to_thread(too_deep, body) if long else too_deep(body):
        raise Problem(Code.BODY_INVALID, f"The body is nested deeper than {MAX_DEPTH}.")


def expect_type(request: Request, media_type: str) -> None:
    """Check what the sender says of the body.

    Raises:
        Problem: media_type_unsupported.
    """
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != media_type or request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(
            Code.MEDIA_TYPE_UNSUPPORTED,
            f"Send Content-Type: {media_type}, and no Content-Encoding.",
            headers={"Accept-Post": media_type},
        )


async def read(request: Request, most: int, timeout_s: float) -> bytes:
    """The body of a request, whatever its Content-Length says.

    Raises:
        Problem: body_too_large, body_timeout; the connection is closed after the answer.
    """
    length = request.headers.get("content-length", "")
    chunks: list[bytes] = []
    size = int(length) if length.isdecimal() and int(length) > most else 0
    try:
        async with asyncio.timeout(timeout_s):
            if size <= most:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > most:
                        break
                    chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            Code.BODY_TIMEOUT, f"The body did not come within {timeout_s:g} s.", headers=CLOSE
        ) from None
    if size > most:
        await _discard(request)
        raise Problem(
            Code.BODY_TOO_LARGE, f"At most {most} bytes are accepted here.", headers=CLOSE
        )
    return b"".join(chunks)


async def _discard(request: Request) -> None:
    try:
        async with asyncio.timeout(DISCARD_S):
            while (await request.receive()).get("more_body"):
                pass
    except (TimeoutError, ClientDisconnect):
        return


def too_deep(text: bytes) -> bool:
    """Whether arrays and objects of a JSON text are nested deeper than MAX_DEPTH.

    >>> too_deep(b"[" * 16), too_deep(b"[" * 17), too_deep(b'"' + b"[" * 17 + b'"')
    (False, True, False)
    """
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:  # of most jobs, and quickly told
        return False
    now = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        now += _STEP.get(found[0], 0)
        if now > MAX_DEPTH:
            return True
    return False
