"""What is trained on: rows of an image, a caption, its language and whether they match."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from producer.manifest.reference import BadReference, Reference
from producer.manifest.tables import GUESSES, chosen_column
from worker.blip.pack_card import is_language
from worker.training.finetune.pictures import FilePicture, Picture
from worker.training.finetune.tables import TableRow, table_rows
from worker.training.pairs import LABELS, spelled

LANGUAGE, MATCH = "language", "match"
SAID_IN_FULL = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One caption of one image. `match` is False where a person says that it is not one."""

    position: str
    picture: Picture
    caption: str
    language: str | None = None
    match: bool = True


@dataclass
class Complaints:
    """Rows that cannot be used: named, counted, and, where that is asked for, the end.

    say: is given a sentence for each of the first.
    """

    say: Callable[[str], None]
    strict: bool = False
    count: int = 0

    def add(self, position: str, reason: str) -> None:
        """One more. Raises ValueError if strict."""
        if self.strict:
            raise ValueError(f"{position}: {reason}")
        self.count += 1
        if self.count <= SAID_IN_FULL:
            self.say(f"left out {position}: {reason}")
        if self.count == SAID_IN_FULL:
            self.say("further rows that are left out are counted, not named")


@dataclass(frozen=True)
class Columns:
    """Names of the columns; None for one that has a usual name."""

    image: str | None = None
    caption: str | None = None


class Rows(NamedTuple):
    """Rows of one language, and how many there were of others."""

    rows: list[Row]
    language: str | None
    others: int


def read_manifest(path: Path, columns: Columns, complaints: Complaints) -> Iterator[Row]:
    """The rows of a manifest, images relative to it.

    Raises:
        ValueError: it is no table, or lacks a column; or, if strict, a row cannot be used.
    """

    def picture(position: str, said: object) -> Picture:
        given = said.strip() if isinstance(said, str) else ""
        where = Reference(position, given, path.parent).locate()
        if where.path is None:
            raise BadReference("The image is a URI, and only files here are read.")
        return FilePicture(where.path, given)

    return read_rows(table_rows(path), path.name, columns, picture, complaints)


def read_rows(
    table: Iterable[TableRow],
    name: str,
    columns: Columns,
    picture: Callable[[str, object], Picture],
    complaints: Complaints,
) -> Iterator[Row]:
    """Rows of any table; a list of captions is as many rows. `picture` makes one of a cell.

    Raises:
        ValueError: the first row lacks a column; or, if strict, a row cannot be used.
    """
    image = caption = ""
    for position, said in table:
        if isinstance(said, str):
            complaints.add(position, said)
            continue
        if not image:
            names = list(said)
            image = chosen_column(
                name, names, columns.image, GUESSES["reference"], "images", "--column"
            )
            caption = chosen_column(
                name, names, columns.caption, GUESSES["caption"], "captions", "--caption-column"
            )
            if MATCH not in names and "label" in names:
                complaints.say(
                    f"the column label of {name} is not read: wrong pairs are said by a column "
                    f"named {MATCH}"
                )
        try:
            where = picture(position, said.get(image))
            language, match = _language(said.get(LANGUAGE)), _match(said.get(MATCH))
            texts = _texts(said.get(caption))
        except ValueError as exc:
            complaints.add(position, str(exc))
            continue
        for text in texts:
            yield Row(position, where, text, language, match)


def of_language(rows: Iterable[Row], wanted: str | None) -> Rows:
    """The rows of a language, and those that do not say theirs.

    wanted: a BCP 47 tag; None for that of the data.

    Raises:
        ValueError: no row is of it, or it is not said which of several is meant.
    """
    every = list(rows)
    found = Counter(row.language for row in every if row.language)
    there = ", ".join(f"{tag} ({count:,})" for tag, count in found.most_common())
    if wanted is None and len({tag.lower() for tag in found}) > 1:
        raise ValueError(f"the data has several languages, {there}: say which with --language")
    language = wanted or next(iter(found), None)
    if wanted is not None and not is_language(wanted):
        raise ValueError(f"--language is a BCP 47 tag such as de or pt-BR, not {wanted!r}")
    tag = (language or "").lower()
    own = [row for row in every if (row.language or tag).lower() == tag]
    if every and not own:
        raise ValueError(f"no row is of the language {wanted}; the data has {there}")
    return Rows(own, language, len(every) - len(own))


def split(rows: list[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and a share to validate on; the rows of an image stay together.

    Which they are depends on the seed and the images' names alone, so that new rows move none.
    """

    def draw(row: Row) -> float:
        said = f"{seed}:{row.picture.name}".encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.sha256(said).digest()[:8]) / 2**64

    drawn = [draw(row) < share for row in rows]
    return (
        [row for row, held in zip(rows, drawn, strict=True) if not held],
        [row for row, held in zip(rows, drawn, strict=True) if held],
    )


def _texts(said: object) -> list[str]:
    given = list(said) if isinstance(said, list | tuple) else [said]
    texts = [" ".join(one.split()) for one in given if isinstance(one, str)]
    if len(texts) < len(given) or not texts:
        raise BadReference("The row has no caption.")
    if not all(texts):
        raise BadReference("The caption has no words.")
    if not all(map(is_unicode, texts)):
        raise BadReference("The caption is no Unicode text: it has half of a surrogate pair.")
    # As tokenizers write it: captions that look alike are equal.
    return [unicodedata.normalize("NFC", text) for text in texts]


def is_unicode(text: str) -> bool:
    """Whether tokenizers can read it: JSON may hold halves of surrogate pairs."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _language(said: object) -> str | None:
    if said is None or said == "":
        return None
    if not isinstance(said, str) or not is_language(said.strip()):
        raise BadReference(f"The language is a BCP 47 tag, not {said!r}.")
    return said.strip()


def _match(said: object) -> bool:
    if said is None or said == "":
        return True
    found = LABELS.get(spelled(said))
    if found is None:
        raise BadReference(f"The match is 0 or 1, true or false, not {said!r}.")
    return found
