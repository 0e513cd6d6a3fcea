"""file:// from one folder the operator allows, and nothing that only looks to be inside it.

The path is resolved, compared with the folder, and then opened step by step from the folder's own
descriptor without following links, so that nothing swapped in between is followed either.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from worker.errors import ErrorCode, Fault
from worker.fetch.body import check_length, collect
from worker.folders import below

__all__ = ["FileSource", "parse_file_uri"]

CHUNK_BYTES = 1024 * 1024

_URI = re.compile(r"file://(?:localhost)?(/[^?#]*)", re.IGNORECASE | re.ASCII | re.DOTALL)
# What opening says when a step turned into a link or into no folder since it was resolved.
_SWAPPED = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def parse_file_uri(uri: str) -> str:
    """The path of a `file:///absolute/path` URI (RFC 8089), percent-decoded as the OS spells it.

    Raises:
        Fault: url_invalid, also for a raw `?` or `#` (`%3F` and `%23` in a path) and for a NUL.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise Fault(ErrorCode.URL_INVALID, "not file:///absolute/path")
    try:
        path = unquote_to_bytes(match[1])
    except UnicodeEncodeError as exc:
        raise Fault(ErrorCode.URL_INVALID, "not Unicode text") from exc
    if b"\0" in path:
        raise Fault(ErrorCode.URL_INVALID, "a path holds no NUL")
    return os.fsdecode(path)


class FileSource:
    """Reads regular files under one folder.

    Args:
        root: the folder; None refuses every file.
        max_bytes: of one file.

    Raises:
        OSError: when `root` is not there.
    """

    def __init__(self, root: Path | None, max_bytes: int = 20 * 1024 * 1024) -> None:
        self._root = root.resolve(strict=True) if root is not None else None
        self._max_bytes = max_bytes

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the file at `uri`; see `worker.fetch.Source`.

        Raises:
            Fault: url_invalid, file_not_allowed (outside the folder, whether it exists or not;
                not a regular file; not readable), file_not_found, body_too_large, fetch_timeout,
                worker_overloaded (no descriptor is left).
        """
        root, resolved = self.place(uri)
        descriptor = _open_under(root, resolved)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise Fault(ErrorCode.FILE_NOT_ALLOWED, f"{resolved} is not a regular file")
            check_length(facts.st_size, self._max_bytes)
            return collect(_chunks(descriptor, deadline), self._max_bytes)
        except OSError as exc:
            raise Fault(ErrorCode.FILE_NOT_FOUND, f"{resolved}: {exc}") from exc
        finally:
            os.close(descriptor)

    def place(self, uri: str) -> tuple[Path, Path]:
        """The folder, and where under it the file at `uri` would lie. Nothing is opened.

        Raises:
            Fault: url_invalid, file_not_allowed.
        """
        path = parse_file_uri(uri)
        if self._root is None:
            raise Fault(ErrorCode.FILE_NOT_ALLOWED, "file:// is not configured on this worker")
        resolved = Path(os.path.realpath(path))
        if not resolved.is_relative_to(self._root):
            raise Fault(ErrorCode.FILE_NOT_ALLOWED, f"{resolved} is not under {self._root}")
        return self._root, resolved

    def close(self) -> None:
        """Nothing is held."""


def _open_under(root: Path, resolved: Path) -> int:
    """A descriptor of `resolved`, which lies under `root`, reached without following a link."""
    *folders, name = resolved.relative_to(root).parts or (".",)
    # Non-blocking: opening a FIFO must not wait for its writer.
    final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        with below(root, folders) as folder:
            return os.open(name, final, dir_fd=folder)
    except OSError as exc:
        code = ErrorCode.FILE_NOT_FOUND
        if exc.errno in _EXHAUSTED:
            code = ErrorCode.WORKER_OVERLOADED
        elif isinstance(exc, PermissionError) or exc.errno in _SWAPPED:
            code = ErrorCode.FILE_NOT_ALLOWED
        raise Fault(code, f"{resolved}: {exc}") from exc


def _chunks(descriptor: int, deadline: float) -> Iterator[bytes]:
    while chunk := os.read(descriptor, CHUNK_BYTES):
        if time.monotonic() > deadline:
            raise Fault(ErrorCode.FETCH_TIMEOUT, "the deadline passed")
        yield chunk
