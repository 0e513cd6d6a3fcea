"""Who hears of what happens in a worker: metrics, logs, traces. Nobody, unless that is said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from producer.contract import ErrorCode, JobResult
    from worker.batcher import Ran
    from worker.pipeline import Product

__all__ = ["Heard"]

Letter = Mapping[str, str] | None
"""The fields of a dead letter, where there is one."""


def _nobody(*_: Any) -> None:
    """Hears nothing."""


@dataclass(frozen=True)
class Heard:
    """Called as things happen, on the thread they happen on. None of them may raise."""

    begun: Callable[[str, str, Mapping[str, Any]], object] = _nobody
    """(task, job id, headers of its message): a delivery of a job is begun."""
    ended: "Callable[[JobResult, Letter], object]" = _nobody
    """A job has its result, written by this process, and perhaps a dead letter."""
    buried: Callable[[str], object] = _nobody
    """(code): a dead letter is written of what has no record."""
    again: "Callable[[ErrorCode], object]" = _nobody
    """(code): there will be another try."""
    redelivered: Callable[[str], object] = _nobody
    """(task): the job was delivered before, and never ended."""
    returned: Callable[[str], object] = _nobody
    """(why: "store" or "ending"): a message goes back, unworked."""
    produced: "Callable[[str, Product], object]" = _nobody
    """(task, product): an image, or the texts of a job, came through the pipeline."""
    judged: "Callable[[int, Product | ErrorCode], object]" = _nobody
    """(index, product or why not): an image of a chunk had its turn, in this try."""
    ran: "Callable[[Ran], object]" = _nobody
    """A batch came off the device."""
    called_back: Callable[[str, Letter], object] = _nobody
    """(fate, letter): a callback was tried."""
    reconciled: Callable[[int | None], object] = _nobody
    """How many jobs a pass of the reconciler sent again; None: it failed."""

    @classmethod
    def together(cls, *all_: "Heard") -> Self:
        """All of these, each in turn."""
        found: dict[str, Callable[..., object]] = {}
        for name in (one.name for one in fields(cls)):
            calls = [call for one in all_ if (call := getattr(one, name)) is not _nobody]
            if calls:
                found[name] = calls[0] if len(calls) == 1 else _each(calls)
        return cls(**found)


def _each(calls: Sequence[Callable[..., object]]) -> Callable[..., object]:
    def tell(*said: Any) -> None:
        for call in calls:
            call(*said)

    return tell
