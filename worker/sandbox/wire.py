"""Messages between a worker and its decoders: JSON, with its length before it.

A decoder may have been taken over by the image it decoded. So nothing that comes from it is
unpickled, and nothing is read beyond a bound.
"""

import json
import socket
import time
from typing import Any

__all__ = ["receive", "send"]

LENGTH_BYTES = 4
MAX_BYTES = 256 * 1024
"""64 regions and 64 shapes are a few KB."""


def send(peer: socket.socket, message: dict[str, Any]) -> None:
    """Send a message.

    Raises:
        OSError: the other side is gone, or does not read.
    """
    text = json.dumps(message, separators=(",", ":")).encode()
    peer.sendall(len(text).to_bytes(LENGTH_BYTES, "big") + text)


def receive(peer: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """Receive a message.

    Args:
        peer: a stream socket.
        deadline: the value of `time.monotonic()` at which to give up; None: never.

    Raises:
        TimeoutError: the deadline passed.
        EOFError: the other side is gone.
        ValueError: what came is no message.
    """
    size = int.from_bytes(_read(peer, LENGTH_BYTES, deadline), "big")
    if size > MAX_BYTES:
        raise ValueError(f"a message of {size} bytes")
    try:
        message = json.loads(_read(peer, size, deadline))
    except RecursionError as exc:
        raise ValueError("a message too deep") from exc
    if not isinstance(message, dict):
        raise ValueError(f"a message that is a {type(message).__name__}")
    return message


def _read(peer: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            # What has come already is read even when the deadline passed while nobody looked.
            peer.settimeout(max(1e-3, deadline - time.monotonic()))
        if not (piece := peer.recv(size - len(data))):
            raise EOFError
        data += piece
    return bytes(data)
