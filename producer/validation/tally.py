"""What many scores say together, in memory that does not grow with them."""

import heapq
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.validation.scores import Scored

BINS = 1_000
WORST = 50
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Bins:
    """Counts of numbers between two bounds, in bins of the same width; what lies outside is counted
    in the first or the last."""

    def __init__(self, low: float, high: float, bins: int = BINS) -> None:
        self.low, self.high = low, high
        self.counts = array("Q", bytes(8 * bins))

    def add(self, value: float) -> None:
        """Count one."""
        place = math.floor((value - self.low) / (self.high - self.low) * len(self.counts))
        self.counts[min(max(place, 0), len(self.counts) - 1)] += 1

    def quantile(self, share: float) -> float | None:
        """The number that so large a share lies below, to the width of a bin; None without any.

        >>> halves = Bins(0, 1, bins=4)
        >>> for value in (0.1, 0.1, 0.6, 0.6):
        ...     halves.add(value)
        >>> halves.quantile(0.25), halves.quantile(0.75)
        (0.125, 0.625)
        """
        total = sum(self.counts)
        if not total:
            return None
        wanted, below = share * total, 0
        width = (self.high - self.low) / len(self.counts)
        for place, count in enumerate(self.counts):
            if count and below + count >= wanted:
                return self.low + width * (place + (wanted - below) / count)
            below += count
        return self.high

    def merged(self, bins: int) -> tuple[list[int], list[float]]:
        """The counts in fewer bins, which divide those there are, and the edges of these."""
        step = len(self.counts) // bins
        counts = [sum(self.counts[i * step : (i + 1) * step]) for i in range(bins)]
        width = (self.high - self.low) / bins
        return counts, [self.low + width * i for i in range(bins + 1)]


@dataclass
class Tally:
    """How pairs are distributed, how many are below a threshold, and the worst of them.

    Args:
        min_itm: pairs with a lower itm_probability are below the threshold.
    """

    min_itm: float
    pairs: int = 0
    below: int = 0
    itm: Bins = field(default_factory=lambda: Bins(0, 1))
    itc: Bins = field(default_factory=lambda: Bins(-1, 1))
    _worst: list[tuple[float, float, int, Scored]] = field(default_factory=list)

    def add(self, pairs: Iterable[Scored]) -> None:
        """Take these too."""
        for pair in pairs:
            self.pairs += 1
            self.below += pair.itm_probability < self.min_itm
            self.itm.add(pair.itm_probability)
            self.itc.add(pair.itc_cosine)
            entry = (-pair.itm_probability, -pair.itc_cosine, -pair.index, pair)
            if len(self._worst) < WORST:
                heapq.heappush(self._worst, entry)
            else:
                heapq.heappushpop(self._worst, entry)

    @property
    def worst(self) -> Sequence[Scored]:
        """The pairs with the lowest itm_probability, lowest first."""
        ranked = sorted(self._worst, key=lambda entry: entry[:3], reverse=True)
        return [pair for *_, pair in ranked]

    def document(self) -> dict[str, Any]:
        """It as JSON, without the worst."""
        return {
            "scored": self.pairs,
            "min_itm": self.min_itm,
            "below": self.below,
            "quantiles": {
                name: {f"{share:.2f}": _rounded(bins.quantile(share)) for share in QUANTILES}
                for name, bins in (("itm_probability", self.itm), ("itc_cosine", self.itc))
            },
        }

    def words(self) -> str:
        """It in lines for people."""
        if not self.pairs:
            return "No pair could be weighed."
        share = self.below / self.pairs
        lines = [f"{self.below:,} of {self.pairs:,} ({share:.1%}) below {self.min_itm:g}"]
        for name, bins in (("itm_probability", self.itm), ("itc_cosine", self.itc)):
            numbers = [f"{q:.0%} {bins.quantile(q):.3f}" for q in QUANTILES]
            lines.append(f"  {name:15}  {', '.join(numbers)}")
        return "\n".join(lines)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
