"""A body, gathered under a cap. Bytes are counted as they come, whatever was declared."""

import zlib
from collections.abc import Iterable, Iterator

from worker.errors import ErrorCode, Fault

__all__ = ["check_length", "collect", "gunzip"]

PIECE_BYTES = 1024 * 1024


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
    """Decompress a gzip body (RFC 1952) of no more than `max_bytes`, before and after.

    It comes in pieces of at most 1 MiB, however much a few bytes stand for.

    Raises:
        Fault: body_too_large; body_incomplete when the stream is cut off or damaged.
    """
    member = zlib.decompressobj(16 + zlib.MAX_WBITS)
    left = max_bytes
    came = 0
    try:
        for chunk in chunks:
            came += len(chunk)
            check_length(came, max_bytes)  # output that stays small excuses no endless input
            while chunk and not member.eof:
                # One byte more than is left, so that reaching the cap and passing it differ.
                piece = member.decompress(chunk, min(left + 1, PIECE_BYTES))
                left -= len(piece)
                if left < 0:
                    raise Fault(ErrorCode.BODY_TOO_LARGE, f"gzip of more than {max_bytes} bytes")
                yield piece
                chunk = member.unconsumed_tail
    except zlib.error as exc:
        raise Fault(ErrorCode.BODY_INCOMPLETE, f"gzip: {exc}") from exc
    if not member.eof:
        raise Fault(ErrorCode.BODY_INCOMPLETE, "gzip: the stream has no end")
