"""A pack as a place has it, and whether the checkpoints that are served can use it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from worker.blip.pack_card import PackCard

__all__ = ["Found", "Served", "why_not"]

Task = Literal["caption", "match"]


@dataclass(frozen=True)
class Found:
    """A pack in a folder or a bucket, of which no more than the card is read.

    name: the card's; the folder's where there is no readable card. where: for people. stamp: others
    are other contents. bytes: of its files. why_not: why it cannot be used, None where it can.
    opened: gives the folder that it lies in, which stays as long as the context; raises Fault, or
    OSError. None where there is nothing of use.
    """

    name: str
    where: str
    stamp: str
    bytes: int
    card: "PackCard | None" = None
    why_not: str | None = None
    opened: Callable[[], AbstractContextManager[Path]] | None = field(
        default=None, compare=False, repr=False
    )

    @property
    def task(self) -> Task | None:
        """What it answers, as far as that is known."""
        return self.card.task if self.card else None

    @property
    def language(self) -> str | None:
        """BCP 47; None where it is not of a language."""
        return self.card.language if self.card else None


@dataclass(frozen=True)
class Served:
    """A checkpoint that packs may adapt. digest: as worker.blip.pack_card.Base has it; asked for
    where revisions differ, since that reads all weights."""

    model_id: str
    revision: str
    digest: Callable[[], str] = field(compare=False)


def why_not(card: "PackCard", served: Mapping[str, Served]) -> str | None:
    """Why a pack cannot be used with the checkpoints of these tasks; None where it can."""
    if (base := served.get(card.task)) is None:
        return f"it is for {card.task}, which is not served here"
    own = card.base
    if own.revision == base.revision or own.digest == base.digest():
        return None
    return (
        f"it was trained on {own.model_id} at revision {own.revision}, and cannot adapt "
        f"{base.model_id} at revision {base.revision}"
    )
