"""The batch size for a device: the smallest that is nearly as fast as any that fits.

Batches of 1, 2, 4, ... are run with the worst-case options until the next one would not fit into
the memory, would take too long, or promises no more speed. `next_batch` and `choose` decide,
`find` runs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.blip.errors import OutOfMemory

NEAR_PEAK = 0.95
"""The share of the best rate that a smaller batch must reach to be preferred."""

_STEP = 1.25  # a batch that is less than this many times the last one is not worth a try
_SMALL = 8  # batches up to this size may take longer than Bounds.batch_seconds
_AGAIN_WITHIN_S = 0.2  # a batch faster than this is run again: its first run sets things up


@dataclass(frozen=True)
class Bounds:
    """What a search may use.

    memory_bytes: beyond the idle models; None where unknown. seconds: of the whole search.
    batch_seconds: of one batch, unless it is small: whoever comes next waits for all of it.
    """

    memory_bytes: int | None
    seconds: float = 20.0
    batch_seconds: float = 1.0
    max_batch: int = 256


@dataclass(frozen=True)
class Trial:
    """One batch size, tried. images_per_s is 0 when it ran out of memory."""

    batch: int
    images_per_s: float
    taken_bytes: int = 0

    def fits(self, bounds: Bounds) -> bool:
        """Whether it ran, within the memory."""
        within = bounds.memory_bytes is None or self.taken_bytes <= bounds.memory_bytes
        return self.images_per_s > 0 and within


class Memory(Protocol):
    """What `find` needs of a PeakMemory."""

    def reset(self) -> None:
        """Forget the peak so far."""

    def release(self) -> None:
        """Give back what is kept for the next use."""

    def taken_bytes(self) -> int:
        """The peak since the last reset, beyond the idle models."""
        ...


def next_batch(trials: Sequence[Trial], spent_s: float, bounds: Bounds) -> int | None:
    """The batch to try after these trials, which took `spent_s`; None when they are enough.

    It is twice the last that fitted, or less where memory ends before; after one that did not fit,
    half way between.
    """
    if not trials:
        return 1
    fitting = [trial for trial in trials if trial.fits(bounds)]
    if not fitting or _flat(fitting):
        return None
    last = max(fitting, key=lambda trial: trial.batch)
    too_large = min((t.batch for t in trials if not t.fits(bounds)), default=None)
    if too_large is None:
        candidate = min(2 * last.batch, bounds.max_batch, _most_that_fit(fitting, bounds))
    else:
        candidate = (last.batch + too_large) // 2
    if candidate >= 16:
        candidate -= candidate % 8
    if candidate < _STEP * last.batch:
        return None
    expected_s = candidate / last.images_per_s
    if spent_s + expected_s > bounds.seconds:
        return None
    if candidate > _SMALL and expected_s > bounds.batch_seconds:
        return None
    return candidate


def choose(trials: Sequence[Trial], bounds: Bounds) -> Trial:
    """The smallest batch within NEAR_PEAK of the best rate among those that fit.

    When not even the smallest fits, it is that one: to serve slowly beats not to serve.
    """
    fitting = sorted((t for t in trials if t.fits(bounds)), key=lambda trial: trial.batch)
    if not fitting:
        return min(trials, key=lambda trial: trial.batch)
    best = max(trial.images_per_s for trial in fitting)
    return next(trial for trial in fitting if trial.images_per_s >= NEAR_PEAK * best)


def find(
    run: Callable[[int], None],
    memory: Memory,
    bounds: Bounds,
    *,
    least_runs: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Trial]:
    """Try batches by `run(batch)`, which returns when the results are on the host.

    least_runs: how often each is run; the fastest run counts. Raises OutOfMemory when not even a
    single image can be run.
    """
    trials: list[Trial] = []
    began_s = clock()
    while (batch := next_batch(trials, clock() - began_s, bounds)) is not None:
        memory.reset()
        seconds = _fastest(lambda batch=batch: run(batch), least_runs, clock)  # type: ignore[misc]
        if seconds is None and batch == 1:
            raise OutOfMemory("no memory for a single image with the largest options")
        rate = batch / seconds if seconds else 0.0
        trials.append(Trial(batch, rate, memory.taken_bytes()))
        memory.release()
    return trials


def describe(trials: Sequence[Trial], chosen: Trial, bounds: Bounds) -> str:
    """What was tried and what was chosen, in one line for a log.

    >>> describe([Trial(1, 2.0, 10**8), Trial(2, 0.0)], Trial(1, 2.0, 10**8), Bounds(3 * 10**9))
    'batch size 1: 2.0 images/s, 0.10 GB of 3.0 GB; tried 1: 2.0, 2: out of memory'
    """
    limit = "" if bounds.memory_bytes is None else f" of {bounds.memory_bytes / 1e9:.1f} GB"
    tried = ", ".join(
        f"{trial.batch}: {trial.images_per_s:.1f}"
        if trial.images_per_s
        else f"{trial.batch}: out of memory"
        for trial in trials
    )
    return (
        f"batch size {chosen.batch}: {chosen.images_per_s:.1f} images/s, "
        f"{chosen.taken_bytes / 1e9:.2f} GB{limit}; tried {tried}"
    )


def _fastest(
    action: Callable[[], None], least_runs: int, clock: Callable[[], float]
) -> float | None:
    """Seconds of the fastest of some runs; None when one ran out of memory.

    The exception is gone when this returns, and with its traceback the tensors of the failed run.
    """
    runs: list[float] = []
    try:
        while len(runs) < least_runs or (sum(runs) < _AGAIN_WITHIN_S and len(runs) < 3):
            start_s = clock()
            action()
            runs.append(clock() - start_s)
    except OutOfMemory:
        return None
    return min(runs)


def _flat(fitting: Sequence[Trial]) -> bool:
    """Whether the last two steps brought nothing that NEAR_PEAK would not overlook."""
    if len(fitting) < 3:
        return False
    before = max(trial.images_per_s for trial in fitting[:-2])
    return NEAR_PEAK * max(trial.images_per_s for trial in fitting[-2:]) <= before


def _most_that_fit(fitting: Sequence[Trial], bounds: Bounds) -> int:
    """The largest batch that should fit, by the line through the last two trials."""
    if bounds.memory_bytes is None:
        return bounds.max_batch
    last = fitting[-1]
    before = fitting[-2] if len(fitting) > 1 else Trial(0, 0.0)
    per_image = (last.taken_bytes - before.taken_bytes) / (last.batch - before.batch)
    if per_image <= 0:
        return bounds.max_batch
    return int(last.batch + (bounds.memory_bytes - last.taken_bytes) / per_image)
