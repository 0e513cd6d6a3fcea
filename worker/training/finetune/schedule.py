"""What of a run depends on the step alone: the rate, and which rows are learned from."""

from functools import lru_cache
from math import cos, pi

import numpy as np
from numpy.typing import NDArray


def share_of_rate(step: int, steps: int, warmup: int) -> float:
    """The part of the full rate at `step`, from 0 on: up in a straight line over `warmup` steps,
    then down to nothing along half a cosine (Loshchilov and Hutter 2017, without restarts)."""
    if step < warmup:
        return (step + 1) / warmup
    return (1 + cos(pi * (step - warmup) / max(1, steps - warmup))) / 2


class Stream:
    """Rows 0..N-1 without end, in a new order each time through; steps take `size` each.

    Every row comes as often as every other, and no step is short. The order follows from the seed.
    """

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, size, seed
        self._order = lru_cache(maxsize=4)(self._drawn)

    def at(self, step: int) -> NDArray[np.int64]:
        """int64 [size]: the rows of this step."""
        places = np.arange(step * self._size, (step + 1) * self._size)
        return np.array([self._order(p // self._rows)[p % self._rows] for p in places.tolist()])

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(self._rows)


def step_seed(seed: int, step: int, part: int, process: int) -> int:
    """A seed of its own for each part of each step: dropout follows from it."""
    words = np.random.SeedSequence([seed, step, part, process]).generate_state(1, np.uint64)
    return int(words[0]) >> 1
