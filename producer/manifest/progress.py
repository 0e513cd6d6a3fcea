"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from producer.errors import PUBLIC_TEXT, ErrorCode
from producer.manifest.rows import IN_SHARD, SKIPPED

LINE_EVERY_S = 10.0
BAR_EVERY_S = 0.25
RATE_OVER_S = 30.0
GOOD = ("succeeded", SKIPPED, IN_SHARD)


class Progress:
    """Shows counts; this one nothing, and says only what `say` is given.

    Args:
        total: of references, as far as it is known.
        begun: how many were done before.
        noun: what they are called.
    """

    every_s = LINE_EVERY_S

    def __init__(
        self,
        total: int | None = None,
        begun: int = 0,
        clock_s: Callable[[], float] = time.monotonic,
        noun: str = "images",
    ) -> None:
        self._total = total
        self._noun = noun
        self._clock_s = clock_s
        self._shown_s = clock_s()
        self._seen = deque([(clock_s(), begun)])

    def expect(self, total: int) -> None:
        """The total is known now; from any thread."""
        self._total = total

    def show(self, counts: Counter[str], flying: int) -> None:
        """Show where the run is, when it is time for that."""
        now_s = self._clock_s()
        if now_s < self._shown_s + self.every_s:
            return
        self._shown_s = now_s
        done = counts.total()
        self._seen.append((now_s, done))
        while len(self._seen) > 2 and self._seen[0][0] < now_s - RATE_OVER_S:
            self._seen.popleft()
        self.draw(done, failures(counts), flying)

    def rate(self) -> float:
        """References a second, lately."""
        (began_s, begun), (now_s, done) = self._seen[0], self._seen[-1]
        return (done - begun) / (now_s - began_s) if now_s > began_s else 0.0

    def words(self, done: int, bad: int, flying: int) -> str:
        """Where the run is, in words."""
        rate = self.rate()
        parts = [f"{done:,} of {self._total:,}" if self._total else f"{done:,} {self._noun}"]
        parts += [
            f"{bad:,} failed",
            f"{rate:,.0f}/s",
            f"{flying} chunk{'s' * (flying != 1)} in flight",
        ]
        if self._total and rate and done < self._total:
            parts.append(f"{duration((self._total - done) / rate)} left")
        return ", ".join(parts)

    def draw(self, done: int, bad: int, flying: int) -> None:
        """Show it."""

    def say(self, sentence: str) -> None:
        """Tell people something, whatever else is shown."""
        print(f"captionq: {sentence}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Show no more."""


class Lines(Progress):
    """A line every ten seconds."""

    def draw(self, done: int, bad: int, flying: int) -> None:
        """See `Progress.draw`."""
        self.say(self.words(done, bad, flying))


class OnTerminal(Progress):
    """A bar."""

    every_s = BAR_EVERY_S

    def __init__(
        self,
        total: int | None = None,
        begun: int = 0,
        clock_s: Callable[[], float] = time.monotonic,
        noun: str = "images",
        file: TextIO | None = None,
    ) -> None:
        super().__init__(total, begun, clock_s, noun)
        console = Console(file=file or sys.stderr)
        self._bar = Bar(
            BarColumn(), TextColumn("{task.description}"), console=console, transient=True,
            auto_refresh=False, redirect_stdout=False,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total, completed=begun)
        self._bar.start()

    def draw(self, done: int, bad: int, flying: int) -> None:
        """See `Progress.draw`."""
        words = self.words(done, bad, flying)
        self._bar.update(
            self._task, total=self._total, completed=done, description=words, refresh=True
        )

    def say(self, sentence: str) -> None:
        """See `Progress.say`."""
        self._bar.console.print(f"captionq: {sentence}", markup=False, highlight=False)

    def close(self) -> None:
        """See `Progress.close`."""
        self._bar.stop()


def failures(counts: Counter[str]) -> int:
    """How many failed."""
    return sum(count for name, count in counts.items() if name not in GOOD)


def duration(seconds: float) -> str:
    """About how long, for people.

    >>> duration(42), duration(150), duration(8000)
    ('42 s', '3 min', '2 h 13 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def summary(counts: Counter[str], here: int, seconds: float, noun: str = "images") -> str:
    """What became of a run's references: a line, and one for each error code.

    Args:
        counts: all of them.
        here: how many of these in this process, which took `seconds`.
        noun: what they are called.
    """
    rate = f" ({here / seconds:,.0f}/s)" if seconds > 0 else ""
    parts = [f"{counts['succeeded']:,} succeeded", f"{failures(counts):,} failed"]
    if counts[SKIPPED]:
        parts.append(f"{counts[SKIPPED]:,} skipped")
    lines = [f"{counts.total():,} {noun}: {', '.join(parts)}; {duration(seconds)}{rate}"]
    failed = Counter({name: n for name, n in counts.items() if name not in GOOD and n})
    wide = max((len(name) for name in failed), default=0)
    for name, count in failed.most_common():
        text = PUBLIC_TEXT[ErrorCode(name)] if name in set(ErrorCode) else ""
        lines.append(f"  {name:{wide}}  {count:>9,}  {text}".rstrip())
    return "\n".join(lines)
