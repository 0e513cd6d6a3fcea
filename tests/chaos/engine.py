"""A stand-in for BLIP: takes batches as the engine does, answers at once, and fails as told."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.chaos.fates import Fate, Kind
from worker.bench.engine import StandInEngine as BenchEngine
from worker.blip.errors import OutOfMemory
from worker.blip.framing import Framing

SIDE = 16


class StandInEngine(BenchEngine):
    """An engine whose captions say nothing. A GREEDY image lets no batch above its limit fit; the
    first batch with a STUCK_DEVICE image lasts `stuck_s`, after `stuck(prompt)` allowed it.

    As worker.blip.Engine, where the worker calls that.
    """

    image_size = (SIDE, SIDE)

    def __init__(self, stuck: Callable[[str], bool], stuck_s: float) -> None:
        super().__init__()
        self._stuck = stuck
        self._stuck_s = stuck_s

    def framing(self, mode: Any, _resolution: int | None) -> Framing:
        """All images are SIDE pixels square."""
        return Framing(mode, self.image_size, SIDE, 3, (0, 0, 0))

    def caption(
        self, images: Sequence[Any], options: Sequence[Any], **_packs: object
    ) -> list[list[Any]]:
        """One caption each. Raises: OutOfMemory."""
        for option in options:
            fate = Fate.of(option.prompt)
            if fate.kind is Kind.GREEDY and len(images) > fate.limit:
                raise OutOfMemory(f"{len(images)} images")
            if fate.kind is Kind.STUCK_DEVICE and self._stuck(option.prompt):
                time.sleep(self._stuck_s)
        return super().caption(images, options)
