"""Captions as text files beside their images."""

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from producer.manifest.folders import IMAGE_SUFFIXES
from producer.manifest.outputs import Output
from producer.manifest.parts import sync_folder
from producer.manifest.rows import Row

SUFFIXES = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))


def text_path(image: Path) -> Path:
    """Where the caption of an image goes: `cat.txt` for `cat.jpg`, or `cat.jpg.txt` where another
    image beside it, such as `cat.png` or `cat.JPG`, would have the same; `scan.001.txt` for
    `scan.001`, whose name does not end as those of images do."""
    named = image.suffix.lower() in IMAGE_SUFFIXES
    if named and not any(_another(image, image.with_suffix(suffix)) for suffix in SUFFIXES):
        return image.with_suffix(".txt")
    return image.with_name(f"{image.name}.txt")


class Beside:
    """Writes the caption of each image that succeeded beside it, then its row to another output.

    A text appears under its name when it is whole and on the disk. Texts are not taken back by
    `cut`: the run that goes on writes them again.
    """

    def __init__(self, rows: Output) -> None:
        self._rows = rows
        self._drafts: dict[Path, Path] = {}
        """By what they are to be called: an image that is named twice has one text."""

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""
        self._rows.cut(mark)

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`. The row says in `text_path` where its text goes, if it has one."""
        for row in rows:
            path: Path | None = row.pop("text_path", None)
            if path is not None and row["caption"] is not None:
                self._draft(path, row["caption"])
        self._rows.write(rows)

    @property
    def due(self) -> bool:
        """See `Output.due`."""
        return self._rows.due

    def commit(self) -> int:
        """See `Output.commit`."""
        for draft in self._drafts.values():
            descriptor = os.open(draft, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        folders = {path.parent for path in self._drafts}
        for path in list(self._drafts):
            self._drafts[path].replace(path)
            del self._drafts[path]
        for folder in folders:
            sync_folder(folder)
        return self._rows.commit()

    def close(self) -> None:
        """See `Output.close`."""
        for draft in self._drafts.values():
            draft.unlink(missing_ok=True)
        self._rows.close()

    def _draft(self, path: Path, caption: str) -> None:
        # Not the name and a suffix: that may be longer than names can be.
        name = blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
        draft = path.with_name(f".{name}.captionq")
        try:
            draft.write_text(caption + "\n", encoding="utf-8")
        except OSError:
            self._drafts.pop(path, None)
            draft.unlink(missing_ok=True)
            raise
        self._drafts[path] = draft


def _another(image: Path, beside: Path) -> bool:
    if beside.name == image.name:
        return False
    try:
        # Where names have no case, cat.JPG is cat.jpg.
        same = beside.name.lower() == image.name.lower() and beside.samefile(image)
        return beside.exists() and not same
    except OSError:  # none is there, or its name would be too long
        return False
