"""The worker under measure: worker.app as it is, counted, with other parts where that is asked for.

celery -A worker.bench.app worker -P threads

BENCH_ENGINE   "null" or "timed": an engine that does not compute; else the settings' checkpoint
BENCH_INTAKE   "null": nothing is fetched and nothing decoded
BENCH_COUNTS   file that what was done is written to, a line every 0.1 s
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from producer.contract import ImageFacts
from worker import app as composed
from worker import house
from worker.asked import BatchKey
from worker.bench.engine import StandInEngine
from worker.blip.framing import PUBLISHED
from worker.image import Decoded
from worker.models import Models

__all__ = ["ENGINES", "app"]

ENGINES = {"null": StandInEngine(), "timed": StandInEngine(per_batch_ms=20, per_image_ms=0.4)}
EVERY_S = 0.1

app = composed.app
_run = Models.run


class _Counts:
    """Batches, images and busy seconds of the device thread."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a")
        self.batches, self.images, self.busy_s = 0, 0, 0.0
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        while True:
            time.sleep(EVERY_S)
            line = [time.time(), self.batches, self.images, self.busy_s]
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class _NoImages:
    """Takes the place of the fetcher and of the sandbox: every image is there, and black."""

    _pixels = np.zeros((*PUBLISHED.size, 3), np.uint8)
    _facts = ImageFacts(
        format="JPEG", width=PUBLISHED.size[1], height=PUBLISHED.size[0], bytes=1, sha256="0" * 64
    )

    def fetch(self, *_: object) -> bytes:
        return b"0"

    def start(self) -> None:
        """Nothing to start."""

    def decode(self, *_: object) -> Decoded:
        return Decoded((self._pixels,), self._facts)

    def close(self) -> None:
        """Nothing to close."""


counts = _Counts(Path(os.environ["BENCH_COUNTS"])) if "BENCH_COUNTS" in os.environ else None


def _counted_run(self: Models, key: BatchKey, payloads: Sequence[Any]) -> Sequence[Any]:
    began_s = time.perf_counter()
    try:
        return _run(self, key, payloads)
    finally:
        if counts is not None:
            counts.busy_s += time.perf_counter() - began_s
            counts.batches += 1
            counts.images += len(payloads)


Models.run = _counted_run  # type: ignore[method-assign]
if engine := ENGINES.get(os.environ.get("BENCH_ENGINE", "")):
    engines: dict[str, Any] = {"caption": engine}
    house.load_engines = lambda settings: engines  # noqa: ARG005 - the name is part of its type
if os.environ.get("BENCH_INTAKE") == "null":
    house.make_fetcher = lambda _: _NoImages()  # type: ignore[assignment,return-value]
    house.make_sandbox = lambda _: _NoImages()  # type: ignore[assignment,return-value]
