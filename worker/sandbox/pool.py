"""Decoders, borrowed for one image each, and replaced when they had to be killed."""

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from producer.contract import ImageFacts
from producer.errors import JobFailed
from worker.blip.framing import Framing
from worker.blip.geometry import Box
from worker.errors import ErrorCode, Fault
from worker.image import Decoded, ImageLimits
from worker.sandbox import wire
from worker.sandbox.budget import PixelBudget
from worker.sandbox.decoder import request
from worker.sandbox.memory import CAPACITY_BYTES, SharedMemory
from worker.sandbox.nursery import Nursery, NurseryGone

__all__ = ["Decoder", "Sandbox", "default_decoders"]

GIB = 1024**3
MAX_TEXT_CHARS = 500


class Sandbox:
    """Decodes images from any number of threads, in a few processes.

    Args:
        limits: what an image may be.
        decoders: processes; None for as many as there are cores, 2 to 16.
        timeout_s: longest time for one image, in seconds. As long again may pass before a decoder
            is free and there is room for the image.
        memory_bytes: address space of one decoder.
        pixels_in_flight: most pixels decoded at the same time; small images do not count.
    """

    def __init__(
        self,
        limits: ImageLimits,
        *,
        decoders: int | None = None,
        timeout_s: float = 10,
        memory_bytes: int = 3 * GIB // 2,
        pixels_in_flight: int = 100_000_000,
    ) -> None:
        self._timeout_s = timeout_s
        self._budget = PixelBudget(pixels_in_flight)
        self._nursery = Nursery(limits, memory_bytes)
        self._idle: list[Decoder] = []
        self._decoders = decoders or default_decoders()
        self._free = threading.Semaphore(self._decoders)
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Make the decoders now, not with the first images.

        Raises:
            Fault: worker_overloaded; they cannot be made.
        """
        self._idle += [self._made() for _ in range(self._decoders)]

    def decode(
        self, data: bytes, framing: Framing | None = None, regions: Sequence[Box] | None = None
    ) -> Decoded:
        """As `worker.image.decode`.

        Raises:
            Fault: as there; decode_timeout, and the decoder is killed; decode_crashed, when the
                decoder ended or answered nonsense; worker_overloaded, when none became free.
            JobFailed: as there.
        """
        if not data:
            raise Fault(ErrorCode.IMAGE_EMPTY, "no bytes")
        with self._borrowed(time.monotonic() + self._timeout_s) as decoder:
            return decoder.decode(data, request(len(data), framing, regions), self._timeout_s)

    def close(self) -> None:
        """End every process. What is being decoded fails."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.close()
        self._nursery.close()

    @contextmanager
    def _borrowed(self, deadline: float) -> "Iterator[Decoder]":
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Fault(ErrorCode.WORKER_OVERLOADED, "no decoder became free")
        try:
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            decoder = decoder or self._made()
            try:
                yield decoder
            finally:
                self._taken_back(decoder)
        finally:
            self._free.release()

    def _made(self) -> "Decoder":
        if self._closed:
            raise Fault(ErrorCode.WORKER_OVERLOADED, "the sandbox is closed")
        try:
            return Decoder(self._nursery, self._budget)
        except (OSError, NurseryGone) as exc:
            raise Fault(ErrorCode.WORKER_OVERLOADED, f"no decoder could be made: {exc}") from exc

    def _taken_back(self, decoder: "Decoder") -> None:
        with self._lock:
            if decoder.usable and not self._closed:
                self._idle.append(decoder)
                return
        decoder.close()


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

    def decode(self, data: bytes, asked: dict[str, Any], timeout_s: float) -> Decoded:
        """Decode one image; see `Sandbox.decode`."""
        self.usable, lent = False, 0
        try:
            deadline = time.monotonic() + timeout_s
            self._memory.write(data)
            self._peer.settimeout(timeout_s)
            wire.send(self._peer, asked)
            answer = wire.receive(self._peer, deadline)
            if "pixels" in answer:
                asked_s = time.monotonic()
                lent = self._lent(answer["pixels"], asked_s + timeout_s)
                wire.send(self._peer, {})
                answer = wire.receive(self._peer, deadline + time.monotonic() - asked_s)
            outcome = self._outcome(answer, len(data))
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

    def close(self) -> None:
        """End the process, and give back what is held of it."""
        self._ended()
        self._peer.close()
        self._memory.close()

    def _ended(self) -> int | None:
        pid, self.pid = self.pid, None  # once: the number may soon be another's
        return None if pid is None else self._nursery.end(pid)

    def _lent(self, pixels: object, deadline: float) -> int:
        if not isinstance(pixels, int) or pixels <= 0:
            raise ValueError(f"{pixels!r} pixels")
        if not self._budget.take(pixels, deadline):
            raise Fault(ErrorCode.WORKER_OVERLOADED, f"no room for {pixels} pixels")
        return pixels

    def _outcome(self, answer: dict[str, Any], size: int) -> Decoded | Fault | JobFailed:
        """What an answer says, every part of it checked. Raises ValueError, TypeError, KeyError."""
        if "fault" in answer:
            return Fault(ErrorCode(answer["fault"]), str(answer["detail"])[:MAX_TEXT_CHARS])
        if "failed" in answer:
            return JobFailed(ErrorCode(answer["failed"]), str(answer["message"])[:MAX_TEXT_CHARS])
        shapes = [_checked(*shape) for shape in answer["shapes"]]
        facts = ImageFacts.model_validate(answer["facts"])
        sizes = [height * width * channels for height, width, channels in shapes]
        if not shapes or sum(sizes) > CAPACITY_BYTES:
            raise ValueError(f"{sum(sizes)} bytes of pixels")
        images = tuple(map(self._memory.read_pixels, shapes, accumulate(sizes, initial=0)))
        self._memory.trim(max(size, sum(sizes)))
        return Decoded(images, facts)


def default_decoders() -> int:
    """As many as there are cores for this process, 2 to 16."""
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    return min(16, max(2, cores))


def _checked(height: object, width: object, channels: object) -> tuple[int, int, int]:
    if not (isinstance(height, int) and isinstance(width, int) and channels == 3):
        raise ValueError("pixels are [height, width, 3]")
    if not (0 < height < 65_536 and 0 < width < 65_536):
        raise ValueError(f"pixels of {height} x {width}")
    return height, width, 3
