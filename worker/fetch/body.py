"""A body, gathered under a cap. Bytes are counted as they come, whatever was declared."""

import zlib
from collections.abc import Iterable, Iterator

from worker.errors import ErrorCode, Fault

__all__ = ["check_length", "collect", "gunzip"]


def check_length(declared: int | None, max_bytes: int) -> None:
    """Refuse a body by its declared length in bytes (None: not declared).

    Raises:
        Fault: body_too_large.
    """
    if declared is not None and declared > max_bytes:
        raise Fault(ErrorCode.BODY_TOO_LARGE, f"{declared} bytes declared, {max_bytes} accepted")


def collect(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    """Join `chunks`, reading no further than the first chunk beyond `max_bytes`.

    Raises:
        Fault: body_too_large.
    """
    body = bytearray()
    for chunk in chunks:
        body += chunk
        check_length(len(body), max_bytes)
    return bytes(body)


def gunzip(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Decompress a gzip body (RFC 1952), never holding more than `max_bytes` + 1 of output.

    Raises:
        Fault: body_too_large; body_incomplete when the stream is cut off or damaged.
    """
    member = zlib.decompressobj(16 + zlib.MAX_WBITS)
    left = max_bytes
    try:
        for chunk in chunks:
            while chunk and not member.eof:
                # One byte more than is left, so that reaching the cap and passing it differ.
                piece = member.decompress(chunk, left + 1)
                left -= len(piece)
                if left < 0:
                    raise Fault(ErrorCode.BODY_TOO_LARGE, f"gzip of more than {max_bytes} bytes")
                yield piece
                chunk = member.unconsumed_tail
    except zlib.error as exc:
        raise Fault(ErrorCode.BODY_INCOMPLETE, f"gzip: {exc}") from exc
    if not member.eof:
        raise Fault(ErrorCode.BODY_INCOMPLETE, "gzip: the stream has no end")
