"""The inside of a decoder process: one image after another, confined.

in    {"bytes": 102400, "framing": {...}, "regions": [...]}     the file lies in the memory
out   {"pixels": 12000000}       only for large images; then waits for {}
out   {"shapes": [[384, 384, 3]], "facts": {...}}               the pixels lie in the memory
   or {"fault": "image_corrupt", "detail": "..."}
   or {"invalid": "..."}                                        the job, and why
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from producer.errors import JobFailed
from worker.blip.framing import Framing
from worker.errors import ErrorCode, Fault
from worker.image import Decoded, ImageLimits, decode
from worker.sandbox import seccomp, wire
from worker.sandbox.memory import CAPACITY_BYTES, SharedMemory

__all__ = ["FREE_PIXELS", "confine", "request", "serve"]

FREE_PIXELS = 1_000_000
"""An image of no more than this is decoded without asking for room."""

KEPT_PIXELS = 4_000_000
"""After a larger image, memory goes back to the system, wherever in the heap it lies."""

MAX_DETAIL_CHARS = 500
FRAMING = TypeAdapter(Framing | None)
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)  # glibc's alone
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # prctl(2)


def confine(memory_bytes: int, parent_pid: int) -> None:
    """Bound what this process can do, whatever an image makes of it.

    No more memory than this, no core, no file or shared memory larger than the pixels' bound, no
    new program with more rights; no file or socket opened any more, not even in the place of one
    that it closes; and what seccomp.py refuses. It ends with its parent, and leaves signals of the
    terminal to it.
    """
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for bound, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, CAPACITY_BYTES),
        (resource.RLIMIT_NOFILE, 0),  # those that are open stay usable
    ):
        resource.setrlimit(bound, (value, value))
    if sys.platform.startswith("linux"):
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(0)
        seccomp.forbid()


def request(size: int, framing: Framing | None, regions: Any) -> dict[str, Any]:
    """What a decoder is asked: to decode the first `size` bytes of the memory."""
    return {
        "bytes": size,
        "framing": None if framing is None else asdict(framing),
        "regions": regions,
    }


def serve(peer: socket.socket, memory: SharedMemory, limits: ImageLimits) -> None:
    """Answer until the other side is gone."""
    pixels_decoded = 0

    def make_room(pixels: int) -> None:
        nonlocal pixels_decoded
        pixels_decoded = pixels
        if pixels > FREE_PIXELS:
            wire.send(peer, {"pixels": pixels})
            wire.receive(peer)

    while True:
        try:
            asked = wire.receive(peer)
        except EOFError:
            return
        answer = _answer(asked, memory, limits, make_room)
        if pixels_decoded > KEPT_PIXELS:
            _malloc_trim(0)
            pixels_decoded = 0
        wire.send(peer, answer)


def _answer(
    asked: dict[str, Any],
    memory: SharedMemory,
    limits: ImageLimits,
    make_room: Callable[[int], None],
) -> dict[str, Any]:
    framing = FRAMING.validate_python(asked["framing"])
    try:
        image = decode(memory.read(asked["bytes"]), limits, framing, asked["regions"], make_room)
        return _stored(image, memory)
    except Fault as exc:
        return {"fault": exc.code, "detail": exc.detail[:MAX_DETAIL_CHARS]}
    except JobFailed as exc:
        return {"invalid": exc.message[:MAX_DETAIL_CHARS]}
    except MemoryError:
        return {"fault": ErrorCode.IMAGE_TOO_LARGE, "detail": "more memory than a decoder has"}


def _stored(image: Decoded, memory: SharedMemory) -> dict[str, Any]:
    if sum(part.nbytes for part in image.images) > CAPACITY_BYTES:
        raise Fault(ErrorCode.IMAGE_TOO_LARGE, "more pixels than the shared memory holds")
    at = 0
    for part in image.images:
        memory.write(part.data, at)
        at += part.nbytes
    return {
        "shapes": [part.shape for part in image.images],
        "facts": image.facts.model_dump(),
    }
