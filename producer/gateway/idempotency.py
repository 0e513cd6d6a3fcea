"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): the same request twice is one.

A key belongs to its caller. Of the first request with it Redis keeps a digest of the body; what is
submitted has ids made of caller and key, so that it is one job, or one batch, wherever the first
try was cut off.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import redis.asyncio

from producer.gateway.access import Caller
from producer.gateway.problems import Code, Fault, Problem
from producer.ledger import typed_errors

MAX_CHARS = 255
_KEY = re.compile(r"[\x21-\x7e]+( [\x21-\x7e]+)*")

PARAMETER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_CHARS},
    "description": "The same key with the same body is the same request, for as long as records "
    "of jobs are kept; with another body it is refused",
    "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
}
"""The header, for OpenAPI."""


def key_of(headers: Mapping[str, str]) -> str | None:
    """The key of a request; None where there is none.

    Raises:
        Problem: query_invalid.
    """
    key = headers.get("idempotency-key")
    if key is not None and not (len(key) <= MAX_CHARS and _KEY.fullmatch(key)):
        fault = Fault(
            detail=f"1 to {MAX_CHARS} visible ASCII characters", parameter="Idempotency-Key"
        )
        raise Problem(Code.QUERY_INVALID, errors=[fault])
    return key


class Idempotency:
    """Keys that were used.

    Args:
        connections: of the Redis that remembers them.
        prefix: what its keys begin with.
        life_s: how long, in seconds.
    """

    def __init__(self, connections: redis.asyncio.Redis, prefix: str, life_s: float) -> None:
        self._redis = connections
        self._prefix = f"{prefix}idempotency:"
        self._life_ms = round(1_000 * life_s)

    async def name(self, caller: Caller, key: str, route: str, body: bytes) -> str:
        """The name, 32 hex digits, of what this request submits.

        Raises:
            Problem: idempotency_conflict: the key was used with another body.
            StoreUnavailable: it cannot be told.
        """
        scope = "\n".join((caller.id or "", route, key)).encode()
        name = hashlib.sha256(scope).hexdigest()[:32]
        digest = hashlib.sha256(body).hexdigest()
        with typed_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.set(self._prefix + name, digest, nx=True, px=self._life_ms)
                pipeline.get(self._prefix + name)
                _, kept = await pipeline.execute()
        if kept != digest:
            raise Problem(Code.IDEMPOTENCY_CONFLICT)
        return name
