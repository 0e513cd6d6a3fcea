"""What the batcher sees of jobs, and how they are to be answered: values, which decide nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from producer.contract import ExplainOptions
from worker.answer import PositionZero
from worker.packs.answering import NO_PACKS, Answering
from worker.packs.found import Found

if TYPE_CHECKING:
    from worker.blip.framing import Framing
    from worker.blip.pack import Pack

__all__ = ["Asked", "BatchKey", "Plan"]


class BatchKey(NamedTuple):
    """What changes the shape of the computation, and so separates batches.

    task: caption, match, embed, embed_texts or rank. resolution: the square's side where it is not
    the model's own. Modes share batches: their grids have about as many patches, and the engine
    masks the difference. weighed: captions that the matching model looks at as well. position_zero,
    k: of match and rank. explain: how it is to be found out where the model looked. pack: the one
    for matching, by name and revision; captions of all packs share batches.
    """

    task: str
    num_beams: int = 1
    num_samples: int = 1
    resolution: int | None = None
    weighed: bool = False
    position_zero: PositionZero | None = None
    k: int = 0
    explain: ExplainOptions | None = None
    pack: str | None = None


class Asked(NamedTuple):
    """One item of a batch: framed pixels, uint8 [H, W, 3], or None, and what is wanted of them.

    weight: its cost on the device, in images. packs: those that answer it, held until they have.
    filtered: whether its captions are to be matched with it.
    """

    pixels: Any
    wanted: Any
    weight: int = 1
    packs: Answering = NO_PACKS
    filtered: bool = False


@dataclass(frozen=True)
class Plan:
    """How a job, or jobs that are alike but for their images, are to be answered.

    chosen: the pack for the job's own task, if any; weighing: for captions to be weighed.
    """

    framing: "Framing"
    chosen: Found | None = None
    weighing: Found | None = None
    take: "Callable[[Found], Pack] | None" = None

    @cached_property
    def packs(self) -> Answering:
        """The packs, on the device as long as they are held. Raises as `Packs.take`."""
        if self.take is None or (self.chosen is None and self.weighing is None):
            return NO_PACKS
        pack = None if self.chosen is None else self.take(self.chosen)
        return Answering(pack, None if self.weighing is None else self.take(self.weighing))
