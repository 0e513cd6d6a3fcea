"""A file that only grows, and can be cut back to where it was."""

import os
from pathlib import Path


class AppendFile:
    """Bytes appended at once, and seen to the disk when asked.

    Raises:
        OSError: the file cannot be opened or, in every method, written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o666)
        self.size = os.fstat(self._fd).st_size

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._fd

    def write(self, data: bytes) -> None:
        """Append all of it, or nothing: a disk that is full takes a part, which is dropped."""
        view, begun = memoryview(data), self.size
        try:
            while view:
                written = os.write(self._fd, view)
                self.size += written
                view = view[written:]
        except OSError as exc:
            self.cut(begun)
            raise OSError(exc.errno, exc.strerror, str(self._path)) from exc

    def sync(self) -> None:
        """Return when what was written is on the disk (fsync)."""
        os.fsync(self._fd)

    def cut(self, size: int) -> None:
        """Drop what lies behind the first `size` bytes."""
        if self.size > size:
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
            self.size = size

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
