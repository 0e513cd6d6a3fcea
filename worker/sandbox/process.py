"""One decoder process as the worker sees it: asked, listened to and not believed, ended."""

import socket
import time
from itertools import accumulate
from typing import Any

from producer.contract import ImageFacts
from producer.errors import JobFailed
from worker.errors import ErrorCode, Fault
from worker.image import Decoded
from worker.sandbox import wire
from worker.sandbox.budget import PixelBudget
from worker.sandbox.memory import CAPACITY_BYTES, SharedMemory
from worker.sandbox.nursery import Nursery

__all__ = ["Decoder"]

MAX_TEXT_CHARS = 500
FAULTS = {
    ErrorCode.IMAGE_EMPTY,
    ErrorCode.IMAGE_UNSUPPORTED_FORMAT,
    ErrorCode.IMAGE_TOO_LARGE,
    ErrorCode.IMAGE_TOO_COMPLEX,
    ErrorCode.IMAGE_CORRUPT,
}
"""What `worker.image.decode` says of an image; of a job, that it is invalid."""


class Decoder:
    """One process: a socket to it and the memory it shares.

    `usable` is False from its first failure on, unless it was the image's. `pid` is None once the
    process was ended.

    Raises:
        OSError, NurseryGone: it could not be made.
    """

    def __init__(self, nursery: Nursery, budget: PixelBudget) -> None:
        self._nursery = nursery
        self._budget = budget
        self.pid: int | None = None
        self.usable = True
        self._memory = SharedMemory()
        try:
            self._peer, theirs = socket.socketpair()
        except OSError:
            self._memory.close()
            raise
        try:
            with theirs:
                self.pid = nursery.fork(theirs, self._memory)
        except BaseException:
            self.close()
            raise

    @property
    def silent(self) -> bool:
        """Whether it waits to be asked: it has not ended, nor said anything ahead of an image."""
        self._peer.setblocking(False)
        try:
            self._peer.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def decode(
        self, data: bytes, asked: dict[str, Any], timeout_s: float, wait_s: float
    ) -> Decoded:
        """Decode one image, which waits no longer than `wait_s` for room; see `Sandbox.decode`."""
        self.usable, lent = False, 0
        try:
            deadline = time.monotonic() + timeout_s
            self._memory.write(data)
            self._peer.settimeout(timeout_s)
            wire.send(self._peer, asked)
            answer = wire.receive(self._peer, deadline)
            if "pixels" in answer:
                asked_s = time.monotonic()
                lent = self._lent(answer["pixels"], asked_s + wait_s)
                wire.send(self._peer, {})
                answer = wire.receive(self._peer, deadline + time.monotonic() - asked_s)
            outcome = self._outcome(answer)
            self._memory.trim()
            self.usable = True
        except TimeoutError as exc:
            raise Fault(ErrorCode.DECODE_TIMEOUT, f"not done after {timeout_s:g} s") from exc
        except (OSError, EOFError) as exc:
            detail = f"{exc!r}, exit status {self._ended()}"
            raise Fault(ErrorCode.DECODE_CRASHED, detail) from exc
        except (ValueError, TypeError, KeyError) as exc:
            raise Fault(ErrorCode.DECODE_CRASHED, f"not understood: {exc!r}") from exc
        finally:
            if not self.usable:
                self._ended()
            self._budget.give_back(lent)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> int | None:
        """End the process, and give back what is held of it. Its exit status, if it is known."""
        status = self._ended()
        self._peer.close()
        self._memory.close()
        return status

    def _ended(self) -> int | None:
        pid, self.pid = self.pid, None  # once: the number may soon be another's
        return None if pid is None else self._nursery.end(pid)

    def _lent(self, pixels: object, deadline: float) -> int:
        if not isinstance(pixels, int) or pixels <= 0:
            raise ValueError(f"{pixels!r} pixels")
        if not self._budget.take(pixels, deadline):
            raise Fault(ErrorCode.WORKER_OVERLOADED, f"no room for {pixels} pixels")
        return pixels

    def _outcome(self, answer: dict[str, Any]) -> Decoded | Fault | JobFailed:
        """What an answer says, every part of it checked. Raises ValueError, TypeError, KeyError."""
        if "fault" in answer:
            code, detail = ErrorCode(answer["fault"]), str(answer["detail"])
            if code not in FAULTS:
                raise ValueError(f"{code} of an image")
            return Fault(code, detail[:MAX_TEXT_CHARS])
        if "invalid" in answer:
            return JobFailed(ErrorCode.JOB_INVALID, str(answer["invalid"])[:MAX_TEXT_CHARS])
        shapes = [_checked(*shape) for shape in answer["shapes"]]
        facts = ImageFacts.model_validate(answer["facts"])
        sizes = [height * width * channels for height, width, channels in shapes]
        if not shapes or sum(sizes) > CAPACITY_BYTES:
            raise ValueError(f"{sum(sizes)} bytes of pixels")
        images = tuple(map(self._memory.read_pixels, shapes, accumulate(sizes, initial=0)))
        return Decoded(images, facts)


def _checked(height: object, width: object, channels: object) -> tuple[int, int, int]:
    if not (isinstance(height, int) and isinstance(width, int) and channels == 3):
        raise ValueError("pixels are [height, width, 3]")
    if not (0 < height < 65_536 and 0 < width < 65_536):
        raise ValueError(f"pixels of {height} x {width}")
    return height, width, 3
