"""How much one gateway takes: python -m tests.gateway_load [--jobs 100000] [--rate 1000] ...

A Redis that sees every write to the disk, `captionq serve` as a process of its own, and a worker
that is too slow for what comes. Raw sockets send jobs at an even rate, each on a connection that is
free, and note how long each answer takes; then streams of events are opened, and held. The
memory of the gateway's process is told at the start, every 20,000 jobs, and at the end.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httptools


class Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self._parser: Any = None
        self._status: asyncio.Future[int] | None = None
        self._body = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._status is not None and not self._status.done():
            self._status.set_exception(exc or ConnectionResetError("the gateway hung up"))

    def send(self, request: bytes) -> "asyncio.Future[int]":
        """Send one; the future has the answer's status."""
        self._parser = httptools.HttpResponseParser(self)
        self._status = asyncio.get_running_loop().create_future()
        self._body.clear()
        self.transport.write(request)
        return self._status

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._status is not None and not self._status.done():
            self._status.set_result(self._parser.get_status_code())


@dataclass
class Load:
    """What was sent, and how it went."""

    port: int
    connections: int
    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    async def send(self, jobs: int, rate: float) -> float:
        """Send so many jobs at so many a second; returns the seconds it took.

        A request that could not be sent when it was due, for want of a connection, counts from
        when it was due.
        """
        loop = asyncio.get_running_loop()
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(self.connections):
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
            free.put_nowait(connection)
        began_s = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        for number in range(jobs):
            due_s = began_s + number / rate
            late_s = due_s - time.monotonic()
            if late_s > 0.001:
                await asyncio.sleep(late_s)
            connection = await free.get()
            task = asyncio.create_task(self._one(connection, free, due_s, number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        took_s = time.monotonic() - began_s
        while not free.empty():
            free.get_nowait().transport.close()
        return took_s

    async def _one(
        self, connection: Connection, free: "asyncio.Queue[Connection]", due_s: float, number: int
    ) -> None:
        status = await connection.send(request(number))
        self.latencies_s.append(time.monotonic() - due_s)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        free.put_nowait(connection)

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def request(number: int) -> bytes:
    body = json.dumps(
        {"task": "caption", "image": f"https://images.example.com/{number:08}.jpg"}
    ).encode()
    return (
        b"POST /v1/jobs HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
