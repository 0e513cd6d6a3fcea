"""Messages as they lie in Redis: kombu's JSON, whoever wrote it. Pure."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from kombu.utils.json import loads


class Opened(NamedTuple):
    """A message that was read: kombu's payload, its id, and when it is due, if later than sent.

    `due_ms` are milliseconds since 1970.
    """

    payload: dict[str, Any]
    message_id: str
    due_ms: int | None


def opened(raw: bytes) -> Opened:
    """Read a message.

    Raises:
        Exception: of almost any kind; it is none.
    """
    payload = loads(raw.decode())
    headers, properties = payload.get("headers") or {}, payload["properties"]
    message_id = str(headers.get("id") or properties["delivery_tag"])
    return Opened(payload, message_id, due_ms(headers))


def due_ms(headers: Any) -> int | None:
    """When a message is due, by its header `eta` (ISO 8601, UTC unless it says); None for at once,
    and for what is no moment: Celery says what is wrong with that."""
    try:
        moment = datetime.fromisoformat(headers["eta"])
    except (TypeError, ValueError, KeyError):
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def text(raw: bytes) -> str:
    """A message as text that can be kept, whatever bytes it is of."""
    return raw.decode(errors="backslashreplace")
