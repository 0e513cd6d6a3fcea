"""Who hears of what happens in a worker: metrics, logs, traces. Nobody, unless that is said."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    ran: "Callable[[Ran], object]" = _nobody
    """A batch came off the device."""
    called_back: Callable[[str, Letter], object] = _nobody
    """(fate, letter): a callback was tried."""
    reconciled: Callable[[int | None], object] = _nobody
    """How many jobs a pass of the reconciler sent again; None: it failed."""
