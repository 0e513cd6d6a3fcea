"""Image files below folders, and files by pattern: in a fixed order, one folder's names at a time.

Hidden files and folders are passed over, and links to folders are not followed.
"""

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".heic", ".heif"}
)
"""What an image file's name ends with, in lower case; the last three only where workers accept
them."""

MAGIC = frozenset("*?[")


def is_image(name: str) -> bool:
    """Whether a file's name, or a key, ends as those of images do."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - may be a key


def images_below(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The image files of a folder and of those in it, in order of their names; and the folders
    that cannot be read, with a sentence that says why."""
    try:
        entries = _entries(folder)
    except OSError as exc:
        yield folder, f"The folder cannot be read: {exc.strerror}."
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from images_below(folder / entry.name)
        elif is_image(entry.name) and _is_file(entry):
            yield folder / entry.name, None


def is_pattern(word: str) -> bool:
    """Whether a word has a wildcard of glob patterns."""
    return bool(MAGIC & set(word))


def matches(pattern: str) -> Iterator[Path]:
    """The files and folders that a pattern names, in order of their names; and the folders in
    which it cannot look for any.

    `*`, `?` and `[...]` stand for parts of a name; `**`, once, for any folders, or none.

    Raises:
        ValueError: there is more than one `**`.
    """
    parts = Path(pattern).expanduser().parts
    plain = next(i for i, part in enumerate(parts) if is_pattern(part))
    if parts.count("**") > 1:
        raise ValueError(f"A pattern may have one **, not more: {pattern}")
    yield from _matches(Path(*parts[:plain]), parts[plain:])


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if first == "**" and not rest:
        yield folder
        return
    if not is_pattern(first):
        if (folder / first).exists():
            yield from _matches(folder / first, rest)
        return
    try:
        entries = _entries(folder, hidden=first.startswith("."))
    except OSError:
        yield folder
        return
    if first == "**":
        yield from _matches(folder, rest)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _matches(folder / entry.name, parts)
    else:
        for entry in entries:
            if fnmatch.fnmatchcase(entry.name, first) and (not rest or _is_folder(entry)):
                yield from _matches(folder / entry.name, rest)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, or into a folder that cannot be read: it fails alone
        return True


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entries(folder: Path, hidden: bool = False) -> list["os.DirEntry[str]"]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    return sorted(seen, key=lambda entry: entry.name)
