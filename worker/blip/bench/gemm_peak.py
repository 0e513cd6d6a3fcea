"""The GEMM peak: how fast this device multiplies matrices of the ViT's own shapes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worker.blip.config import VisionConfig
from worker.blip.linear import packs

_SECONDS = 0.2  # spent on each way to multiply each shape, at least
_LEAST_CALLS = 3


@dataclass(frozen=True)
class GemmPeak:
    """The fastest of all shapes and ways, in FLOP/s, and which it was."""

    rate: float
    name: str


def gemm_shapes(config: VisionConfig, batch: int) -> dict[str, tuple[int, int, int]]:
    """(m, k, n) of the products [batch * tokens, k] x [k, n] of one layer, by name."""
    rows, width, inner = batch * config.num_tokens, config.hidden_size, config.intermediate_size
    return {
        "qkv": (rows, width, 3 * width),
        "projection": (rows, width, width),
        "fc1": (rows, width, inner),
        "fc2": (rows, inner, width),
    }


@torch.inference_mode()
def gemm_peak(
    config: VisionConfig,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    seconds: float | None = None,
) -> GemmPeak:
    """Measure every shape in every way there is; each is as fast as its fastest call.

    The ways: torch's linear, and on a CPU oneDNN's with the weight packed beforehand, which is
    often the faster one. All with a bias, as the ViT has them.
    """
    best = GemmPeak(0.0, "")
    for name, (m, k, n) in gemm_shapes(config, batch).items():
        rows, weight, bias = (
            torch.randn(*size, device=device).to(dtype) for size in ((m, k), (n, k), (n,))
        )
        for way, product in _ways(rows, weight, bias):
            rate = (
                2 * m * k * n / _fastest(product, device, _SECONDS if seconds is None else seconds)
            )
            best = max(best, GemmPeak(rate, f"{name}, {way}"), key=lambda peak: peak.rate)
    return best


def _ways(rows: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    yield "linear", lambda: functional.linear(rows, weight, bias)
    if rows.device.type == "cpu" and packs(rows.dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(rows))
        yield (
            "packed",
            lambda: torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], ""),
        )


def _fastest(product: Callable[[], Tensor], device: torch.device, seconds: float) -> float:
    """Seconds of the fastest call; on CUDA of a run of calls, so that launches do not count."""
    calls = 20 if device.type == "cuda" else 1
    took: list[float] = []
    while len(took) < _LEAST_CALLS or sum(took) * calls < seconds:
        start_s = time.perf_counter()
        for _ in range(calls):
            product()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append((time.perf_counter() - start_s) / calls)
    return min(took)
