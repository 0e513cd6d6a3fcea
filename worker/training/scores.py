"""What ITM says of labelled pairs: margins, from which calibrations are fitted."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.blip import Engine
from worker.blip.errors import InputError
from worker.blip.results import Match
from worker.calibration import PositionZero
from worker.image_files import BATCH, ImageFiles
from worker.training.pairs import Pair

T = TypeVar("T")


@dataclass(frozen=True)
class Scores:
    """What ITM says of N pairs, and what people say.

    margins: float64 [N], `itm_logits[1] - itm_logits[0]`; labels: bool [N]; images: int64 [N],
    equal numbers where pairs share an image.
    """

    margins: NDArray[np.float64]
    labels: NDArray[np.bool_]
    images: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.margins)

    def where(self, chosen: NDArray[np.bool_]) -> "Scores":
        """The pairs that a mask [N] picks."""
        return Scores(self.margins[chosen], self.labels[chosen], self.images[chosen])


class Scoring:
    """Scores that grow, image by image."""

    def __init__(self) -> None:
        self._margins: list[float] = []
        self._labels: list[bool] = []
        self._images: list[int] = []
        self._seen = 0

    def add(self, matches: Sequence[Match], labels: Sequence[bool]) -> None:
        """The matches of one more image's texts, with a label for each."""
        self._margins += [match.itm_logits[1] - match.itm_logits[0] for match in matches]
        self._labels += labels
        self._images += [self._seen] * len(matches)
        self._seen += 1

    def scores(self) -> Scores:
        """All that was added."""
        return Scores(
            np.array(self._margins, np.float64),
            np.array(self._labels, np.bool_),
            np.array(self._images, np.int64),
        )


def scored(
    engine: Engine,
    pairs: Iterable[Pair],
    say: Callable[[str], None],
    position_zero: PositionZero | None = None,
    watched: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Scores:
    """The scores of pairs of files. Images are read in batches, each once, with all its texts.

    say: is given a sentence for each text that the model cannot take; it is left out, and so are
    images that cannot be read, which are reported on stderr. watched: passes images through, and
    may show how far they are.
    """
    of_image: dict[Path, list[Pair]] = {}
    for pair in pairs:
        of_image.setdefault(pair.image, []).append(pair)
    framing, scoring = engine.framing(), Scoring()
    for paths in batched(watched(list(of_image)), BATCH):
        read = dict(ImageFiles(paths, framing).answers(list))
        if not read:
            continue
        encoded = engine.encode([image for [image] in read.values()], "native")
        asked = [of_image[path] for path in read]
        try:
            found = engine.match(encoded, _texts(asked), position_zero)
        except InputError:
            asked = [[pair for pair in row if _taken(engine, pair, say)] for row in asked]
            found = engine.match(encoded, _texts(asked), position_zero)
        for matches, row in zip(found, asked, strict=True):
            scoring.add(matches, [pair.label for pair in row])
    return scoring.scores()


def _texts(asked: Sequence[Sequence[Pair]]) -> list[list[str]]:
    return [[pair.text for pair in row] for row in asked]


def _taken(engine: Engine, pair: Pair, say: Callable[[str], None]) -> bool:
    try:
        engine.embed(texts=[pair.text])
    except InputError as exc:
        say(f"left out {pair.position}: {exc}")
        return False
    return True


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most `size` items (itertools.batched came with Python 3.12)."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
