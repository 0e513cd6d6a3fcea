"""Engines that do not compute: what remains is the plumbing round them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from worker.blip.framing import PUBLISHED, Framing

__all__ = ["StandInEngine"]


class StandInEngine:
    """As worker.blip.Engine, where the worker calls that.

    Args:
        per_batch_ms, per_image_ms: how long a batch takes; its thread sleeps for so long.
    """

    device = "cpu"
    dtype = "float32"
    model_id = "stand-in"
    revision = "stand-in"
    digest = ""
    image_size = PUBLISHED.size

    def __init__(self, per_batch_ms: float = 0, per_image_ms: float = 0) -> None:
        self._per_batch_ms = per_batch_ms
        self._per_image_ms = per_image_ms

    def batch_s(self, images: int) -> float:
        """Seconds that a batch of so many takes."""
        return (self._per_batch_ms + self._per_image_ms * images) / 1_000

    def framing(self, mode: Any, _resolution: int | None) -> Framing:
        """That of BLIP's published checkpoints."""
        return replace(PUBLISHED, mode=mode)

    def encode(self, images: Sequence[Any], *_: object) -> Sequence[Any]:
        """The images."""
        return images

    def caption(
        self, images: Sequence[Any], _options: Sequence[Any], **_packs: object
    ) -> list[list[Any]]:
        """The same caption for each, whatever pack is to say it."""
        if took_s := self.batch_s(len(images)):
            time.sleep(took_s)
        return [[_CAPTION] for _ in images]

    def tell(self, progress: Callable[[], None]) -> None:
        """There are no parts of its calls."""

    def warmup(self, max_batch: int) -> None:
        """Nothing is cold."""

    def capture(self, max_batch: int) -> None:
        """Nothing is recorded."""


_CAPTION = SimpleNamespace(
    text="a picture of nothing in particular",
    tokens=["a", "picture", "of", "nothing", "in", "particular", "[SEP]"],
    token_logprobs=[-0.5] * 7,
    processed_token_logprobs=[-0.5] * 7,
    logprob=-3.5,
    mean_logprob=-0.5,
    score=-0.5,
    finish_reason="stop",
    seed=None,
    count=1,
)
