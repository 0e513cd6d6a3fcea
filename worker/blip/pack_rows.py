"""Which pack each row of a batch has."""

from collections.abc import Sequence

from torch import nn

from worker.blip.pack import Pack


def packs_of(
    packs: Pack | Sequence[Pack | None] | None, images: int, base: nn.Module
) -> list[Pack | None]:
    """The pack of each image. base: the part of the checkpoint that they have to adapt.

    Raises ValueError for another number of them, and for one of another engine or task.
    """
    rows = [packs] * images if packs is None or isinstance(packs, Pack) else list(packs)
    if len(rows) != images:
        raise ValueError(f"{len(rows)} packs for {images} images")
    for pack in rows:
        if pack is not None and pack.base is not base:
            raise ValueError(f"{pack.name} is of another engine, or task ({pack.task})")
    return rows


def by_pack(packs: Sequence[Pack | None]) -> dict[Pack | None, list[int]]:
    """The rows of each pack that there is, in the order of its first row."""
    found: dict[Pack | None, list[int]] = {}
    for row, pack in enumerate(packs):
        found.setdefault(pack, []).append(row)
    return found
