"""Decoders, borrowed for one image each, and replaced when they had to be killed."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from worker.blip.framing import Framing
from worker.blip.geometry import Box
from worker.errors import ErrorCode, Fault
from worker.image import Decoded, ImageLimits
from worker.sandbox.budget import PixelBudget
from worker.sandbox.decoder import request
from worker.sandbox.nursery import Nursery, NurseryGone
from worker.sandbox.process import Decoder

__all__ = ["Sandbox", "default_decoders"]

log = logging.getLogger(__name__)

GIB = 1024**3


class Sandbox:
    """Decodes images from any number of threads, in a few processes.

    Args:
        limits: what an image may be.
        decoders: processes; None for as many as there are cores, 2 to 16.
        timeout_s: longest time for one image, in seconds. As long again, and no longer, an image
            waits: for a decoder, and then for room for its pixels.
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
        for _ in range(self._decoders):
            self._taken_back(self._made())

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
        until = time.monotonic() + self._timeout_s
        with self._borrowed(until) as decoder:
            wait_s = until - time.monotonic()
            asked = request(len(data), framing, regions)
            return decoder.decode(data, asked, self._timeout_s, wait_s)

    def close(self) -> None:
        """End every process. What is being decoded fails."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.close()
        self._nursery.close()

    @contextmanager
    def _borrowed(self, deadline: float) -> Iterator[Decoder]:
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Fault(ErrorCode.WORKER_OVERLOADED, "no decoder became free")
        try:
            decoder = self._idle_one() or self._made()
            try:
                yield decoder
            finally:
                self._taken_back(decoder)
        finally:
            self._free.release()

    def _idle_one(self) -> Decoder | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                decoder = self._idle.pop()
            if decoder.silent:
                return decoder
            log.warning("a decoder ended without an image: exit status %s", decoder.close())

    def _made(self) -> Decoder:
        if self._closed:
            raise Fault(ErrorCode.WORKER_OVERLOADED, "the sandbox is closed")
        try:
            return Decoder(self._nursery, self._budget)
        except (OSError, NurseryGone) as exc:
            raise Fault(ErrorCode.WORKER_OVERLOADED, f"no decoder could be made: {exc}") from exc

    def _taken_back(self, decoder: Decoder) -> None:
        with self._lock:
            if decoder.usable and not self._closed:
                self._idle.append(decoder)
                return
        decoder.close()


def default_decoders() -> int:
    """As many as there are cores for this process, 2 to 16."""
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    return min(16, max(2, cores))
