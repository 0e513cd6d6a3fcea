"""Wall-clock times, sides taking turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def medians(
    sides: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Seconds of one call of each side: the median over rounds. See `times`."""
    took = times(sides, rounds, device)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def times(
    sides: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of one call of each side in each round.

    Every round calls each side once; every other round in reverse order, so that what drifts
    (clocks, other load) meets all sides alike. Each call ends when the device is idle. Warm up
    before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            start_s = time.perf_counter()
            sides[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - start_s)
    return seconds
