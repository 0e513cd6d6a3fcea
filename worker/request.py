"""A message as Celery's events and its `inspect` show it: without what only workers should see."""

import re
from typing import Any

from celery.worker import request as typed_request

_Celery: Any = typed_request.Request
"""Celery's class; its stubs know little of what it takes."""

SHOWN_CHARS = 500
"""Most characters that are shown of a task's arguments."""

_QUERY = re.compile(r"(\w://[^\s'\"?#]*)[?#][^\s'\"]*")
_LOGIN = re.compile(r"(\w://)[^\s'\"/]*@")
_DATA = re.compile(r"(data:[\w/+.-]*)[;,][^\s'\"]*")


def shown(text: str) -> str:
    """Arguments as anybody may see them: no query of a URL, which may be signed, no password in
    one, no bytes of a picture, and not too long.

    >>> shown("[{'image': 'https://me:pw@x.example/a.png?X-Amz-Signature=5c1f'}]")
    "[{'image': 'https://x.example/a.png'}]"
    """
    for pattern in (_DATA, _LOGIN, _QUERY):
        text = pattern.sub(r"\1", text)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


class Request(_Celery):  # type: ignore[misc]
    """Our clients trim what they say of a job; others say all of it."""

    def __init__(self, message: Any, *args: Any, headers: Any = None, **kwargs: Any) -> None:
        said = dict(message.headers if headers is None else headers)
        for name in ("argsrepr", "kwargsrepr"):
            said[name] = shown(str(said.get(name) or ""))
        super().__init__(message, *args, headers=said, **kwargs)

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - it is always safe here
        """What `inspect` and Flower show of a message that is held."""
        found: dict[str, Any] = super().info(safe=True)
        return found
