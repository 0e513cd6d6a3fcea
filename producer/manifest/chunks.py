"""References in chunks: the same chunks, whenever the same source is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from producer.contract import MAX_CHUNK
from producer.manifest.reference import Reference

DIGEST_BYTES = 8


@dataclass(frozen=True)
class Chunk:
    """Some references that follow each other. `number` counts chunks from 0, `first` references."""

    number: int
    first: int
    references: tuple[Reference, ...]

    def digest(self) -> str:
        """Tells these references from others: 16 hexadecimal digits."""
        told = blake2b(digest_size=DIGEST_BYTES)
        for one in self.references:
            text = f"{one.position}\0{one.given}\0{one.fault or ''}"
            text += "" if one.language is None else f"\0\0{one.language}"
            text += "\n" if one.caption is None else f"\0{one.caption}\n"
            told.update(text.encode("utf-8", "surrogatepass"))
        return told.hexdigest()


def in_chunks(references: Iterable[Reference], size: int = MAX_CHUNK) -> Iterator[Chunk]:
    """All references, `size` at a time."""
    stream, number = iter(references), 0
    while taken := tuple(islice(stream, size)):
        yield Chunk(number, number * size, taken)
        number += 1
