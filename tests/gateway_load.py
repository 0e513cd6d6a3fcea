"""How much one gateway takes: python -m tests.gateway_load [--jobs 100000] [--rate 1000] ...

A Redis that sees every write to the disk, `captionq serve` as a process of its own, and a worker
that ends 50 jobs a second. Jobs are sent at an even rate, each on a connection that is free, and it
is noted how long each answer takes from the moment that the request was due. Then streams of
events are opened, each of a job of its own, and held, and all are told the end of their jobs. The
memory of the gateway's process is told at the start, every 20,000 jobs, and at the end.

What sends shares the machine's cores with what is measured: it is raw sockets, and takes a third
of a core for a thousand requests a second.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

from producer.contract import CaptionJob
from producer.embedded import RedisServer
from producer.redis_store import RedisStore
from tests.gateway_process import IMAGE, GatewayProcess
from tests.stand_in_worker import StandInWorker, succeeded

EVERY = 20_000
WORKER_PAUSE_S = 0.02


class Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self._parser: Any = None
        self._status: asyncio.Future[int] | None = None
        self.body = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._answered(exc or ConnectionResetError("the gateway hung up"))

    def send(self, request: bytes) -> "asyncio.Future[int]":
        """Send one; the future has the answer's status once all of it is there."""
        self._parser = httptools.HttpResponseParser(self)
        self._status = asyncio.get_running_loop().create_future()
        self.body.clear()
        self.transport.write(request)
        return self._status

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self._answered(self._parser.get_status_code())

    def _answered(self, answer: int | Exception) -> None:
        if self._status is not None and not self._status.done():
            if isinstance(answer, Exception):
                self._status.set_exception(answer)
            else:
                self._status.set_result(answer)


async def connected(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, "127.0.0.1", port
    )
    return connection


@dataclass
class Load:
    """What was sent, and how it went."""

    port: int
    connections: int = 64
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    sent: int = 0

    async def send(self, jobs: int, rate: float) -> float:
        """Send so many jobs, so many a second; returns how many a second it was."""
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(self.connections):
            free.put_nowait(await connected(self.port))
        began_s = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        for number in range(jobs):
            due_s = began_s + number / rate
            early_s = due_s - time.monotonic()
            if early_s > 0.001:
                await asyncio.sleep(early_s)
            task = asyncio.create_task(self._one(await free.get(), free, due_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)
        took_s = time.monotonic() - began_s
        while not free.empty():
            free.get_nowait().transport.close()
        return jobs / took_s

    async def _one(
        self, connection: Connection, free: "asyncio.Queue[Connection]", due_s: float
    ) -> None:
        self.sent += 1
        status = await connection.send(job_request(self.sent))
        self.latencies_s.append(time.monotonic() - due_s)
        self.statuses[status] += 1
        free.put_nowait(connection)

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def job_request(number: int, job_id: str | None = None) -> bytes:
    job = {"task": "caption", "image": f"https://images.example.com/{number:08}.jpg"}
    body = json.dumps(job | ({"job_id": job_id} if job_id else {})).encode()
    return (
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


@dataclass
class Streams:
    """Streams of events, each of a job of its own."""

    port: int
    open: list[tuple[Connection, "asyncio.Future[int]"]] = field(default_factory=list)

    async def hold(self, count: int) -> float:
        """Open so many; returns the seconds until each has said where its job stands."""
        began_s = time.monotonic()
        submitting = await connected(self.port)
        for number in range(count):
            status = await submitting.send(job_request(number, f"followed-{number}"))
            assert status == 202, (status, bytes(submitting.body))
            stream = await connected(self.port)
            path = f"/v1/jobs/followed-{number}/events".encode()
            ended = stream.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            self.open.append((stream, ended))
        submitting.transport.close()
        while not all(b"event: queued" in stream.body for stream, _ in self.open):
            await asyncio.sleep(0.05)
        return time.monotonic() - began_s

    async def end(self, url: str) -> float:
        """End the jobs of all; returns the seconds until each stream has told its result."""
        began_s = time.monotonic()
        await asyncio.to_thread(_end_all, url, len(self.open))
        await asyncio.gather(*(ended for _, ended in self.open))
        took_s = time.monotonic() - began_s
        assert all(b"event: result" in stream.body for stream, _ in self.open)
        for stream, _ in self.open:
            stream.transport.close()
        return took_s


def _end_all(url: str, count: int) -> None:
    store = RedisStore(url)
    for number in range(count):
        store.finish(succeeded(CaptionJob(job_id=f"followed-{number}", image=IMAGE)))
    store.close()


def rss_mb(pid: int) -> float:
    """Memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1_024, 1)


@contextmanager
def slow_worker(url: str) -> Iterator[None]:
    """A worker in a process of its own, which is always behind."""
    process = subprocess.Popen([sys.executable, "-m", "tests.gateway_load", "--worker", url])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def work(url: str) -> None:
    def slowly(job: Any) -> Any:
        time.sleep(WORKER_PAUSE_S)
        return succeeded(job)

    with StandInWorker(url, slowly):
        while True:
            time.sleep(60)


async def measure(gateway: GatewayProcess, url: str, jobs: int, rate: float, streams: int) -> None:
    pid = gateway.process.pid
    say(load_average=os.getloadavg()[0], rss_mb=rss_mb(pid))
    await Load(gateway.port).send(min(1_000, jobs), rate)  # connections and imports, once
    done = 0
    while done < jobs:
        some = min(EVERY, jobs - done)
        load = Load(gateway.port, sent=done)
        per_s = await load.send(some, rate)
        done += some
        say(
            jobs=done,
            per_s=round(per_s),
            p50_ms=load.percentile_ms(0.5),
            p99_ms=load.percentile_ms(0.99),
            max_ms=load.percentile_ms(1),
            statuses=dict(load.statuses),
            rss_mb=rss_mb(pid),
            load_average=os.getloadavg()[0],
        )
    if streams:
        held = Streams(gateway.port)
        opened_s = await held.hold(streams)
        say(streams=len(held.open), opened_s=round(opened_s, 2), rss_mb=rss_mb(pid))
        ended_s = await held.end(url)
        say(streams_told=len(held.open), told_s=round(ended_s, 2), rss_mb=rss_mb(pid))


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=1_000, help="jobs a second")
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker)
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder) / "redis") as server,
        GatewayProcess(server.url, Path(folder) / "log", fresh=True) as gateway,
        slow_worker(server.url),
    ):
        uvloop.run(measure(gateway, server.url, given.jobs, given.rate, given.streams))


if __name__ == "__main__":
    main()
