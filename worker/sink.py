"""Sinks: where a worker writes the items of a chunk, as one shard, in place of its result.

A shard's name is made of the chunk's id and its format alone. It is there whole or not at all, and
writing it again, by whichever worker, leaves the same one object. What a job may name is the
operator's say (SINK_ALLOW); credentials and the S3 service are the operator's as well.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from producer.contract import ItemResult
from worker.errors import ErrorCode, Fault
from worker.shard import Format, check_format, encoded
from worker.sink_file import FileSink
from worker.sink_place import Place, place_of

__all__ = ["Sinks", "Writer", "shard_name", "uri_of"]

MAX_NAME = 120
THREADS = 8
"""Shards being written at a time; the time of those that wait runs as well."""


class Writer(Protocol):
    """Writes objects of one scheme."""

    def put(self, place: Place, data: bytes, deadline_s: float) -> None:
        """Write the object whole, in place of one that is there, by `deadline_s` of
        time.monotonic(). Raises: Fault, sink_unavailable or sink_not_allowed."""

    def close(self) -> None:
        """Release what is held."""


class Sinks:
    """Writes shards to the places that are allowed, from any number of threads.

    Args:
        allow: the folders that jobs may write to or below, as SINK_ALLOW has them; none refuses
            every sink.
        timeout_s: longest time of one write, seconds.
        s3: writes to s3://; None refuses it.
    """

    def __init__(self, allow: Sequence[str], timeout_s: float, s3: Writer | None = None) -> None:
        self._allow = [place_of(entry) for entry in allow]
        self._timeout_s = timeout_s
        files = [entry for entry in self._allow if entry.scheme == "file"]
        self._writers: dict[str, Writer] = {"file": FileSink(files)}
        if s3 is not None:
            self._writers["s3"] = s3
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sink")

    def check(self, sink: str, kind: Format | None = None) -> None:
        """Pass a sink that may be written to, in a format that can be.

        Raises:
            Fault: sink_not_allowed.
        """
        place = place_of(sink)
        if place.scheme not in self._writers or not any(map(place.within, self._allow)):
            raise Fault(ErrorCode.SINK_NOT_ALLOWED, f"{sink} is on no list")
        if kind is not None:
            check_format(kind)

    def write(self, sink: str, kind: Format, job_id: str, items: Sequence[ItemResult]) -> str:
        """Write the items of a chunk; the URI of the shard.

        Raises:
            Fault: sink_not_allowed; sink_unavailable, for whatever may pass.
        """
        self.check(sink, kind)
        return self.put(sink, job_id, kind, encoded(items, kind))

    def put(self, sink: str, job_id: str, suffix: str, data: bytes) -> str:
        """Write a job's one file of a kind; its URI. Raises as `write`."""
        self.check(sink)
        uri = uri_of(sink, job_id, suffix)
        deadline_s = time.monotonic() + self._timeout_s
        place = place_of(uri)
        # In another thread: a disk that hangs is waited for no longer than a service.
        put = self._threads.submit(self._writers[place.scheme].put, place, data, deadline_s)
        try:
            put.result(self._timeout_s)
        except TimeoutError as exc:
            put.cancel()
            detail = f"{uri}: not written in {self._timeout_s:g} s"
            raise Fault(ErrorCode.SINK_UNAVAILABLE, detail) from exc
        return uri

    def close(self) -> None:
        """Release what is held."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for writer in self._writers.values():
            writer.close()


def uri_of(sink: str, job_id: str, suffix: str) -> str:
    """The URI of a job's file of a kind in a sink."""
    return f"{sink}{shard_name(job_id)}.{suffix}"


def shard_name(job_id: str) -> str:
    """A chunk's id as a file name and as part of a URI, alike on every system.

    >>> shard_name("run-7.0001"), shard_name("a/b")
    ('run-7.0001', 'a_b-c14cddc033f64b9d')
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", job_id)[:MAX_NAME]
    if name == job_id:
        return name
    return f"{name}-{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"
