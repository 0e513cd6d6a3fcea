"""One decoder step, for all rows and beams of a batch: as it comes, or over static shapes.

A CPU runs each step over as many columns as there are. On a GPU the launches of a step's kernels
would cost more than their arithmetic; so there the shapes are rounded up to a few, everything lies
in static buffers, and each shape is captured once as a CUDA graph and replayed (as gpt-fast does).
Rows that only fill up a shape, and columns not reached yet, are masked; nobody reads their results.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.blip.text import SelfCache, StaticCache, TextDecoder

log = logging.getLogger(__name__)

_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_COLUMNS = 32  # columns are rounded up to a multiple
_MOST_COLUMNS = 512  # of static shapes: every step attends to all columns of its shape
_KEPT = 32  # captured shapes
_MOST_FAILURES = 3  # captures that fail; one may for want of memory, more never will do
_WARM_RUNS = 2  # before a capture: libraries set themselves up in the first runs


class Step(Protocol):
    """`cache` takes the prompts' prefill; then one call for each token."""

    cache: SelfCache

    def __call__(self, token_ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """token_ids, positions: int64 [B, beams]; mask: bool [B, 1, beams, columns], those of the
        cache and of this step. Returns logits [B, beams, V], good until the next call.
        """
        ...


class DynamicStep:
    """A step over the columns there are."""

    def __init__(
        self, decoder: TextDecoder, cross: Tensor, cross_mask: Tensor | None, columns: int
    ) -> None:
        self._decoder, self._cross, self._cross_mask = decoder, cross, cross_mask
        self.cache = SelfCache(cross.new_empty(decoder.text.cache_shape(cross.shape[2], columns)))

    def __call__(self, token_ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """See Step."""
        hidden = self._decoder.text(
            token_ids, positions, mask, self._cross, self.cache, self._cross_mask
        )
        return self._decoder.logits(hidden)


@dataclass(frozen=True)
class StepShape:
    """What a static step is made for. tokens: of an image; masked: whether some have fewer."""

    rows: int
    beams: int
    columns: int
    tokens: int
    masked: bool


def step_shape(
    rows: int, beams: int, columns: int, tokens: int, masked: bool = False
) -> StepShape | None:
    """The static shape that takes a batch; None where it would be too large to pay."""
    columns += -columns % _COLUMNS
    if rows > _ROWS[-1] or columns > _MOST_COLUMNS:
        return None
    rows = next(size for size in _ROWS if size >= rows)
    return StepShape(rows, beams, columns, tokens, masked)


def row_sizes(batch: int) -> list[int]:
    """The rows of the static shapes that take batches up to this size, ascending."""
    enough = next((size for size in _ROWS if size >= batch), _ROWS[-1])
    return [size for size in _ROWS if size <= enough]


class StaticStep:
    """A step over static buffers, replayed from a CUDA graph once it has been captured."""

    cache: SelfCache

    def __init__(self, decoder: TextDecoder, shape: StepShape, cross: Tensor, cached: Tensor):
        """cross [layers, 2, rows, heads, tokens, size] and cached [layers, 2, rows, heads, columns,
        size] are buffers that steps of other shapes may use as well, one batch at a time."""
        self._decoder, self._cross, self._cached = decoder, cross, cached
        device, rows, beams = cross.device, shape.rows, shape.beams
        self._token_ids = torch.zeros(rows, beams, dtype=torch.int64, device=device)
        self._positions = torch.zeros_like(self._token_ids)
        self._mask = torch.zeros(rows, 1, beams, shape.columns, dtype=torch.bool, device=device)
        self._cross_mask = (
            torch.ones(rows, 1, 1, shape.tokens, dtype=torch.bool, device=device)
            if shape.masked
            else None
        )
        self._own = torch.arange(beams, device=device)
        self._columns = self._own.clone()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def begin(self, cross: Tensor, cross_mask: Tensor | None) -> "StaticStep":
        """Take a batch: its images' keys and values, and their mask, as TextModel takes them."""
        rows = cross.shape[2]
        self._cross[:, :, :rows] = cross
        self._cached.zero_()  # what is masked must still be finite
        self._mask.zero_()
        self._mask[rows:] = True
        if self._cross_mask is not None and cross_mask is not None:
            self._cross_mask.fill_(True)
            self._cross_mask[:rows] = cross_mask
        self.cache = SelfCache(self._cached[:, :, :rows])
        return self

    def __call__(self, token_ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """See Step."""
        rows, columns = len(token_ids), mask.shape[-1]
        self._token_ids[:rows] = token_ids
        self._positions[:rows] = positions
        self._mask[:rows, ..., :columns] = mask
        torch.add(self._own, self.cache.length, out=self._columns)
        self.cache.length += token_ids.shape[1]
        if self._graph is not None:
            self._graph.replay()
        else:
            self._logits = self._forward()
        assert self._logits is not None  # noqa: S101 - for mypy: capture and forward both set it
        return self._logits[:rows]

    def capture(self, pool: Any) -> None:
        """Record the forward as a CUDA graph. Raises what CUDA raises when it cannot be.

        pool: memory for what lies between, shared by graphs that are never replayed at once.
        """
        device = self._cross.device
        side = _side_stream(device)
        # A capture is of the current device, and leaves out, unsaid, what runs on another.
        with torch.cuda.device(device):
            before = torch.cuda.current_stream()
            side.wait_stream(before)
            with torch.cuda.stream(side):
                for _ in range(_WARM_RUNS):
                    self._forward()
                graph = torch.cuda.CUDAGraph()
                # Other threads may use CUDA meanwhile, to pin memory say.
                with torch.cuda.graph(
                    graph, pool=pool, stream=side, capture_error_mode="thread_local"
                ):
                    self._logits = self._forward()
            before.wait_stream(side)
        self._graph = graph

    def _forward(self) -> Tensor:
        cache = StaticCache(self._cached, self._columns)
        hidden = self._decoder.text(
            self._token_ids, self._positions, self._mask, self._cross, cache, self._cross_mask
        )
        return self._decoder.logits(hidden)


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device: each one that multiplies holds a workspace."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Steps:
    """The steps of one decoder: static ones on a GPU, kept by shape; dynamic ones elsewhere."""

    def __init__(self, decoder: TextDecoder, static: bool, capture: bool) -> None:
        self.decoder, self.static = decoder, static
        self._failures_left = _MOST_FAILURES if capture else 0
        self._kept: OrderedDict[StepShape, StaticStep] = OrderedDict()
        self._pool: Any = None  # of torch.cuda.graph_pool_handle, an opaque type
        self._cross = self._cached = torch.empty(0)  # shared by all shapes, as large as the largest

    def begin(self, cross: Tensor, cross_mask: Tensor | None, beams: int, columns: int) -> Step:
        """The step for a batch of images; cross and cross_mask as TextModel takes them."""
        rows, tokens = cross.shape[2], cross.shape[4]
        shape = step_shape(rows, beams, columns, tokens, cross_mask is not None)
        if not self.static or shape is None:
            return DynamicStep(self.decoder, cross, cross_mask, columns)
        step = self._kept.pop(shape, None) or self._make(shape, cross)
        self._kept[shape] = step
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return step.begin(cross, cross_mask)

    def _make(self, shape: StepShape, like: Tensor) -> StaticStep:
        text = self.decoder.text
        cross = self._shared("_cross", text.cache_shape(shape.rows, shape.tokens), like)
        cached = self._shared("_cached", text.cache_shape(shape.rows, shape.columns), like)
        step = StaticStep(self.decoder, shape, cross, cached)
        if self._failures_left:
            try:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                step.capture(self._pool)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                log.warning("no CUDA graph of %s: it is decoded without", shape, exc_info=True)
                self._failures_left -= 1
        return step

    def clear(self) -> None:
        """Forget all steps, and free their buffers."""
        self._kept.clear()
        self._cross = self._cached = torch.empty(0)

    def _shared(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The first elements of a buffer in this shape; a larger buffer ends all captured steps."""
        size = torch.Size(shape).numel()
        buffer: Tensor = getattr(self, name)
        if buffer.numel() < size:
            self._kept.clear()
            setattr(self, name, torch.empty(0))  # freed before the larger one is made
            buffer = like.new_zeros(size)
            setattr(self, name, buffer)
        return buffer[:size].view(shape)
