"""What every answer has: headers that keep browsers from harm, and its place in the metrics."""

import logging
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.gateway.access import HEADERS
from producer.gateway.metrics import Metrics
from producer.gateway.problems import Code, Problem

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Of answers that do not say otherwise."""

_log = logging.getLogger("captionq.gateway")


class Edge:
    """Outermost but for Starlette's own; what fails inside is logged and answered as a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _completed(message.get("headers", ()), scope)
                self._metrics.answered(scope, status, time.monotonic() - began_s)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:  # before its body was whole: nobody waits for an answer
            return
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if status:  # the answer had begun: uvicorn cuts it off
                raise
            await Problem(Code.INTERNAL_ERROR).response()(scope, receive, sending)


def _completed(headers: "list[tuple[bytes, bytes]]", scope: Scope) -> list[tuple[bytes, bytes]]:
    said = {name for name, _ in headers}
    return [*headers, *scope.get(HEADERS, ()), *(one for one in SECURITY if one[0] not in said)]
