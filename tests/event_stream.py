"""Server-sent events read as a browser reads them (HTML, section 9.2.6)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx


class Event(NamedTuple):
    """One event; comments have neither name nor data."""

    name: str
    id: str
    data: dict[str, Any]


@contextmanager
def following(client: httpx.Client, where: str, **headers: str) -> Iterator[Iterator[Event]]:
    """The events of a job at `where`, as they come."""
    with client.stream("GET", f"{where}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            if "event" in fields or "" in fields:
                data = json.loads(fields.get("data", "{}"))
                yield Event(fields.get("event", ""), fields.get("id", ""), data)
            fields = {}
