"""Shards as files below folders that the operator allows.

The folder is opened once for each write, and everything below without following links.
"""

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from errno import ELOOP, ENOTDIR

from worker.errors import ErrorCode, Fault
from worker.folders import below
from worker.sink_place import Place

CHUNK_BYTES = 1024 * 1024


class FileSink:
    """Writes files below any of these folders, which are there; folders below are made.

    A process that is killed as it writes may leave a file .NAME.*.part behind.
    """

    def __init__(self, folders: Sequence[Place]) -> None:
        self._folders = folders

    def put(self, place: Place, data: bytes, deadline_s: float) -> None:
        """See `worker.sink.Writer`: a new file, flushed to the disk, takes the place's name.

        Raises:
            Fault: sink_unavailable: the disk is full, the folder is not there or may not be
                written to, ...; sink_not_allowed, for a link on the way.
        """
        root = next(folder.path for folder in self._folders if place.within(folder))
        *steps, name = place.path[len(root) :].split("/")
        try:
            with below(root, steps, make=True) as folder:
                _replace(folder, name, data, deadline_s)
        except OSError as exc:
            link = exc.errno in (ELOOP, ENOTDIR)
            code = ErrorCode.SINK_NOT_ALLOWED if link else ErrorCode.SINK_UNAVAILABLE
            raise Fault(code, f"{place.path}: {exc}") from exc

    def close(self) -> None:
        """Nothing is held."""


def _replace(folder: int, name: str, data: bytes, deadline_s: float) -> None:
    part = f".{name}.{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(part, flags, 0o644, dir_fd=folder)
    try:
        try:
            left = memoryview(data)
            while left:
                if time.monotonic() > deadline_s:  # whoever waited has gone
                    raise TimeoutError("the deadline passed")
                left = left[os.write(file, left[:CHUNK_BYTES]) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise
    os.fsync(folder)
