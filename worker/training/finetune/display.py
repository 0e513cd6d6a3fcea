"""How far a run is: a bar on a terminal, a line now and then elsewhere. On stderr."""

import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, track

from producer.manifest.progress import duration
from worker.training.finetune.pictures import Picture

LINE_EVERY_S = 10.0


class Display:
    """Says where a run is. `hidden` in all processes but the first."""

    def __init__(self, hidden: bool = False) -> None:
        self._console = Console(stderr=True, quiet=hidden)
        self._bar: Progress | None = None
        self._shown_s = self._began_s = 0.0

    def say(self, sentence: str) -> None:
        """Tell people something."""
        console = self._bar.console if self._bar else self._console
        words = f"captionq-worker: {sentence}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)

    def images(self, what: str, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Pictures, counted as they pass."""
        hidden = not self._console.is_terminal
        yield from track(pictures, what, console=self._console, transient=True, disable=hidden)

    def begin(self, step: int, steps: int) -> None:
        """Training goes on from `step`."""
        self._first, self._steps = step, steps
        self._shown_s = self._began_s = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                BarColumn(), TextColumn("{task.description}"), console=self._console, transient=True
            )
            self._task = self._bar.add_task("", total=steps, completed=step)
            self._bar.start()

    def show(self, step: int, loss: float, rate: float) -> None:
        """`step` steps are done."""
        now_s = time.monotonic()
        if self._bar is None and now_s < self._shown_s + LINE_EVERY_S:
            return
        each_s = (now_s - self._began_s) / (step - self._first)
        words = (
            f"step {step:,} of {self._steps:,}, loss {loss:.4f}, rate {rate:.2g}, "
            f"{each_s:.2f} s a step, {duration(each_s * (self._steps - step))} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=words)
        else:
            self._shown_s = now_s
            self.say(words)

    def end(self) -> None:
        """Show no bar any more."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
