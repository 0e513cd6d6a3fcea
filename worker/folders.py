"""Folders below one that is trusted, reached without following links.

Each is opened from the descriptor of the one above: what is swapped in between leads nowhere else.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

__all__ = ["below"]

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STEP = _ROOT | os.O_NOFOLLOW


@contextmanager
def below(root: str | os.PathLike[str], steps: Sequence[str], make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that is reached from `root` by these steps, until the block ends.

    Args:
        make: make those that are not there.

    Raises:
        OSError: ELOOP or ENOTDIR for a link, and whatever else opening says.
    """
    folder = os.open(root, _ROOT)
    try:
        for step in steps:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(step, dir_fd=folder)
            inner = os.open(step, _STEP, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)
