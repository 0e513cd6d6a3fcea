"""Shared memory between a worker and one decoder: files go in, pixels come back.

A file without a name, read and written by position and mapped by nobody: were it mapped, whoever
holds the other end could cut it short and kill the reader with SIGBUS.
"""

import os
import tempfile

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAPACITY_BYTES", "SharedMemory"]

CAPACITY_BYTES = 256 * 1024 * 1024
"""Bound of one image's pixels: 50 MP, or 64 regions of 768 x 768. Only what is used is kept."""

KEPT_BYTES = 4 * 1024 * 1024
"""Left in place between images, so that the usual ones need no new pages."""


class SharedMemory:
    """One file in memory, by its descriptor.

    Args:
        descriptor: of an existing one; None makes one.

    Raises:
        OSError: too many files are open.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _nameless_file() if descriptor is None else descriptor

    def write(self, data: bytes | memoryview, at: int = 0) -> None:
        """Put `data` at an offset, in bytes.

        Raises:
            OSError: no memory is left, or it would pass a decoder's bound.
        """
        rest = memoryview(data).cast("B")
        while rest:
            count = os.pwrite(self.descriptor, rest, at)
            at, rest = at + count, rest[count:]

    def read(self, size: int) -> bytes:
        """The first `size` bytes; fewer, if it holds fewer."""
        return os.pread(self.descriptor, size, 0)

    def read_pixels(self, shape: tuple[int, int, int], at: int) -> NDArray[np.uint8]:
        """An array of `shape` from an offset in bytes.

        Raises:
            ValueError: it ends before.
        """
        pixels = np.empty(shape, np.uint8)
        rest = pixels.data.cast("B")
        while rest:
            if not (piece := os.pread(self.descriptor, len(rest), at)):
                raise ValueError(f"{len(rest)} bytes are missing from pixels of {shape}")
            rest[: len(piece)] = piece
            at, rest = at + len(piece), rest[len(piece) :]
        return pixels

    def trim(self) -> None:
        """Give back what is beyond what is kept, whoever wrote it."""
        if os.fstat(self.descriptor).st_size > KEPT_BYTES:
            os.ftruncate(self.descriptor, KEPT_BYTES)

    def close(self) -> None:
        """Close this side's descriptor."""
        os.close(self.descriptor)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):  # not /dev/shm, which containers keep small
        return os.memfd_create("captionq", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
