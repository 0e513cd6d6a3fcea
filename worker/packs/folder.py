"""Packs in a folder: it is one itself, or has one in each of its folders."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from worker.packs.found import Found

__all__ = ["MOST_PACKS", "FolderPlace", "described"]

MOST_PACKS = 1_000
"""Packs of one place; more are not looked at."""

CARD = "pack.json"
MAX_CARD_BYTES = 1_048_576


class FolderPlace:
    """The packs of a folder.

    Args:
        optional: it may be missing.
    """

    def __init__(self, folder: Path, optional: bool = False) -> None:
        self._folder = folder
        self._optional = optional
        self.where = str(folder)

    def listed(self) -> list[Found]:
        """What is there now, by name; a folder in it that cannot be read is a pack that cannot be
        used. Raises OSError: the folder itself cannot be read."""
        if self._optional and not self._folder.exists():
            return []
        if (self._folder / CARD).is_file():
            folders: Sequence[Path] = [self._folder]
        else:
            inside = sorted(self._folder.iterdir())
            folders = [one for one in inside if not one.name.startswith(".")]
        packs = (found for one in folders if (found := _found(one)) is not None)
        return list(islice(packs, MOST_PACKS))

    def close(self) -> None:
        """Nothing is open."""


def described(folder: Path, **facts: object) -> Found:
    """A pack by the card in a folder; it cannot be used where that cannot be read."""
    from worker.blip.errors import PackError
    from worker.blip.pack_card import read_card

    given: dict[str, Any] = {"where": str(folder), "stamp": "", "bytes": 0} | facts
    try:
        size = (folder / CARD).stat().st_size if (folder / CARD).is_file() else 0
        if size > MAX_CARD_BYTES:
            raise PackError(f"{folder.name}: {CARD} has more than {MAX_CARD_BYTES} bytes")
        card = read_card(folder)
    except PackError as exc:
        return Found(name=folder.name, why_not=str(exc), **given)
    return Found(name=card.name, card=card, **given)


def _found(folder: Path) -> Found | None:
    """The pack in a folder; None where there is none, or it has gone meanwhile."""
    try:
        return _read(folder) if (folder / CARD).is_file() else None
    except FileNotFoundError:
        return None
    except OSError as exc:
        why = f"it cannot be read: {exc.strerror}"
        return Found(name=folder.name, where=str(folder), stamp="", bytes=0, why_not=why)


def _read(folder: Path) -> Found:
    @contextmanager
    def opened() -> Iterator[Path]:
        yield folder

    told, size = hashlib.sha256(), 0
    for path in sorted(folder.iterdir()):
        if path.is_file():
            is_now = path.stat()
            size += is_now.st_size
            told.update(f"{path.name}\0{is_now.st_size}\0{is_now.st_mtime_ns}\n".encode())
    return described(folder, stamp=told.hexdigest()[:16], bytes=size, opened=opened)
