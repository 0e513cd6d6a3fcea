"""Messages as they lie in Redis: kombu's JSON, whoever wrote it. Pure."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from kombu.utils.json import loads

from producer.contract import MAX_CHUNK
from producer.queues import CHUNK_TASKS, TASK_NAMES
from producer.wire import IMAGES

CHUNK_TASK_NAMES = frozenset(TASK_NAMES[task] for task in CHUNK_TASKS)

MAX_RETRIES = 15
"""The most that a message of a job says of itself; others are taken for this one."""


class Opened(NamedTuple):
    """A message that was read: kombu's payload, the name it is delayed under, and when it is due,
    if later than sent (milliseconds since 1970)."""

    payload: dict[str, Any]
    name: str
    due_ms: int | None


def delayed_name(message_id: str, retries: int) -> str:
    """What a message is delayed under. One that comes late, from a worker that had lost its job,
    does not take the place of a later attempt."""
    return f"{message_id}:{min(max(retries, 0), MAX_RETRIES)}"


def name_of(message: Any) -> str:
    """The same of a message as kombu has it: by its task's id, or else by its own tag."""
    headers = message.get("headers") or {}
    retries = headers.get("retries")
    message_id = str(headers.get("id") or message["properties"]["delivery_tag"])
    return delayed_name(message_id, retries if isinstance(retries, int) else 0)


def images_behind(headers: Any) -> int:
    """How many images a message is about, as far as it says: 1 for a job, and MAX_CHUNK for a chunk
    that does not say."""
    images = headers.get(IMAGES)
    if isinstance(images, int) and 0 < images <= MAX_CHUNK:
        return images
    return MAX_CHUNK if headers.get("task") in CHUNK_TASK_NAMES else 1


def opened(raw: bytes) -> Opened:
    """Read a message.

    Raises:
        Exception: of almost any kind; it is none.
    """
    payload = loads(raw.decode())
    return Opened(payload, name_of(payload), due_ms(payload.get("headers") or {}))


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
