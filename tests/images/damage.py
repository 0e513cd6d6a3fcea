"""A hostile file, and the code that it must fail with."""

from dataclasses import dataclass

from worker.errors import ErrorCode

EMPTY = ErrorCode.IMAGE_EMPTY
OTHER = ErrorCode.IMAGE_UNSUPPORTED_FORMAT
LARGE = ErrorCode.IMAGE_TOO_LARGE
COMPLEX = ErrorCode.IMAGE_TOO_COMPLEX
CORRUPT = ErrorCode.IMAGE_CORRUPT
SHOWN = None


@dataclass(frozen=True)
class Hostile:
    """A file and what must come of it: one of these codes."""

    name: str
    data: bytes
    codes: tuple[ErrorCode | None, ...]


GREYS = bytes(range(256)) * 4
TWO_MIB = 2 << 20
