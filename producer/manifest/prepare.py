"""What remains of a run: its chunks, checked against the journal, and made ready to be sent."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from producer.manifest.beside import text_path
from producer.manifest.chunks import Chunk
from producer.manifest.copies import Copies
from producer.manifest.journal import CannotResume, LeftOut, Past
from producer.manifest.reference import BadReference, Located, Reference

NOTHING = LeftOut()


@dataclass(frozen=True)
class Prepared:
    """A chunk that can be sent.

    `images` are the URIs to ask for, `asked` their references with their indices, `invalid` those
    that nothing can ask for, each with a sentence that says why. `texts` has the path of the text
    that goes beside an image, by index. `seen` says that the journal has it already.
    """

    chunk: Chunk
    images: tuple[str, ...]
    asked: tuple[tuple[int, Reference], ...]
    invalid: tuple[tuple[int, Reference, str], ...] = ()
    left_out: LeftOut = NOTHING
    texts: dict[int, Path] = field(default_factory=dict)
    seen: bool = False

    @property
    def skipped(self) -> int:
        """How many images have their caption already."""
        return self.left_out.skipped.bit_count()


class Preparer:
    """Finds the images of chunks.

    Args:
        upload: copies a file here to where workers read it, and returns its URI.
        beside: captions go beside images, which therefore are files here.
        skip_existing: images that have a text beside them are skipped.
    """

    def __init__(
        self,
        upload: Callable[[Path], str] | None = None,
        beside: bool = False,
        skip_existing: bool = False,
    ) -> None:
        self._copies = Copies(upload) if upload else None
        self._beside = beside
        self._skip_existing = skip_existing

    def prepare(self, chunk: Chunk, sent: LeftOut | None = None) -> Prepared:
        """Make a chunk ready, without what cannot be asked for or is there already.

        Args:
            sent: what it was left without when it was sent before: its job cannot change.

        Raises:
            UploadFailed: S3 did not take a file.
        """
        bad = skipped = 0
        found: list[tuple[int, Reference, Located]] = []
        asked: list[tuple[int, Reference]] = []
        uris: list[str] = []
        faults: list[tuple[int, Reference, str]] = []
        texts: dict[int, Path] = {}
        for place, reference in enumerate(chunk.references):
            index, bit = chunk.first + place, 1 << place
            try:
                located = self._locate(reference, sent, bit)
            except BadReference as exc:
                bad |= bit
                faults.append((index, reference, str(exc)))
                continue
            if self._beside and located.path is not None:
                texts[index] = text_path(located.path)
            if sent.skipped & bit if sent else self._skip_existing and texts[index].exists():
                skipped |= bit
                texts.pop(index, None)
            else:
                found.append((index, reference, located))
        places = [located for _, _, located in found]
        ready = self._copies.uris(places) if self._copies else [one.uri for one in places]
        for (index, reference, located), uri in zip(found, ready, strict=True):
            if isinstance(uri, BadReference) and sent is None:
                bad |= 1 << (index - chunk.first)
                faults.append((index, reference, str(uri)))
                texts.pop(index, None)
            else:
                uris.append(located.uri if isinstance(uri, BadReference) else uri)
                asked.append((index, reference))
        return Prepared(
            chunk,
            tuple(uris),
            tuple(asked),
            tuple(faults),
            LeftOut(bad, skipped),
            texts,
            seen=sent is not None,
        )

    def close(self) -> None:
        """Upload no more."""
        if self._copies is not None:
            self._copies.close()

    def _locate(self, reference: Reference, sent: LeftOut | None, bit: int) -> Located:
        try:
            located = reference.locate()
            if self._beside and located.path is None:
                raise BadReference("It is no file here, to have a text beside it.")
        except BadReference:
            if sent is None or sent.bad & bit:
                raise
            return reference.remembered()
        if sent is not None and sent.bad & bit:
            raise BadReference("It was no image when the run began.")
        return located


def remaining(chunks: Iterable[Chunk], past: Past, preparer: Preparer) -> Iterator[Prepared]:
    """The chunks that are not done, in order, ready to be sent.

    None comes before all those that were sent are known to be the same as then.

    Raises:
        CannotResume: they are not.
        OSError: see `Preparer.prepare`, and whatever `chunks` raises.
    """
    again: list[Chunk] = []
    count = 0
    for chunk in chunks:
        count += 1
        if chunk.number < past.sent:
            if not past.same(chunk.number, chunk.digest()):
                raise _changed(chunk.references[0])
            if not past.is_done(chunk.number):
                again.append(chunk)
            continue
        yield from _again(again, past, preparer)
        again.clear()
        yield preparer.prepare(chunk)
    if count < past.sent:
        raise CannotResume(
            "The source has fewer references than when the run began: it has changed since. "
            "Start a new run."
        )
    yield from _again(again, past, preparer)


def _again(chunks: Iterable[Chunk], past: Past, preparer: Preparer) -> Iterator[Prepared]:
    for chunk in chunks:
        yield preparer.prepare(chunk, past.left_out(chunk.number))


def _changed(first: Reference) -> CannotResume:
    return CannotResume(
        f"The source has changed since the run began: from {first.position} on, or shortly after, "
        "it has other references. Start a new run."
    )
