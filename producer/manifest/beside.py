"""Captions as text files beside their images."""

import os
from collections.abc import Sequence
from pathlib import Path

from producer.manifest.folders import IMAGE_SUFFIXES
from producer.manifest.outputs import Output
from producer.manifest.parts import sync_folder
from producer.manifest.rows import Row


def text_path(image: Path) -> Path:
    """Where the caption of an image goes: `cat.txt` for `cat.jpg`, or `cat.jpg.txt` where another
    image beside it, such as `cat.png`, would have the same."""
    others = IMAGE_SUFFIXES - {image.suffix.lower()}
    taken = any(image.with_suffix(suffix).exists() for suffix in others)
    return image.with_name(f"{image.name}.txt") if taken else image.with_suffix(".txt")


class Beside:
    """Writes the caption of each image that succeeded beside it, then its row to another output.

    A text appears under its name when it is whole and on the disk. Texts are not taken back by
    `cut`: the run that goes on writes them again.
    """

    def __init__(self, rows: Output) -> None:
        self._rows = rows
        self._renames: list[tuple[Path, Path]] = []

    def cut(self, mark: int) -> None:
        """See `Output.cut`."""
        self._rows.cut(mark)

    def write(self, rows: Sequence[Row]) -> None:
        """See `Output.write`. The row says in `text_path` where its text goes, if it has one."""
        for row in rows:
            path: Path | None = row.pop("text_path", None)
            if path is not None and row["caption"] is not None:
                draft = path.with_name(f".{path.name}.captionq")
                draft.write_text(row["caption"] + "\n", encoding="utf-8")
                self._renames.append((draft, path))
        self._rows.write(rows)

    @property
    def due(self) -> bool:
        """See `Output.due`."""
        return self._rows.due

    def commit(self) -> int:
        """See `Output.commit`."""
        for draft, _ in self._renames:
            descriptor = os.open(draft, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for draft, path in self._renames:
            draft.replace(path)
        for folder in {path.parent for _, path in self._renames}:
            sync_folder(folder)
        self._renames.clear()
        return self._rows.commit()

    def close(self) -> None:
        """See `Output.close`."""
        for draft, _ in self._renames:
            draft.unlink(missing_ok=True)
        self._rows.close()
