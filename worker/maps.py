"""What was explained of one image: in a result's words, inside the result, and as files for a sink.

The files are those of worker/pictures/written.py, whose image is called as the job is.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from producer.contract import (
    CaptionJob,
    ExplainJob,
    MatchJob,
    Preview,
    WordExplanation,
    WordsExplained,
)
from worker.pictures.ground import jpeg, size_of
from worker.pictures.mapping import mapping
from worker.pictures.maps_as_bytes import fitted
from worker.sink import uri_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.blip.explanation import Explanation
    from worker.blip.placement import PlacedGrid

__all__ = ["PREVIEW_PX", "Explained", "inline_cells", "maps_uri", "preview", "words_explained"]

MOST_CELLS = 300_000
"""Of a job's inline maps together, a byte each: 400 kB of a result, in base64."""
PREVIEW_PX = 512
"""The longer side of the image in a result."""
MOST_PREVIEW_BYTES = 64_000
"""Of its JPEG."""

Explainable = CaptionJob | MatchJob | ExplainJob


@dataclass(frozen=True, eq=False)
class Explained:
    """What was explained of one image, and the image that it is placed on."""

    explanations: "Sequence[Explanation]"
    placed: "PlacedGrid"
    shown: "NDArray[np.uint8] | None" = None
    """The upright image, RGB [H, W, 3], smaller than it was; None where no pictures are wanted."""

    def files(self, name: str) -> "Iterator[tuple[str, bytes]]":
        """The files by name, of an image of this name. Raises: NotInstalled, pictures without
        matplotlib."""
        from worker.pictures.written import KINDS, files

        kinds = ("arrays",) if self.shown is None else KINDS
        shown = np.empty((1, 1, 3), np.uint8) if self.shown is None else self.shown
        return files(self.explanations, shown, self.placed, name, kinds)


def maps_uri(job: Explainable, number: int) -> str | None:
    """Where the maps of an explanation of a job will be; None where they are not written."""
    if job.explain is None or job.explain.sink is None or job.job_id is None:
        return None
    return uri_of(job.explain.sink, job.job_id, f"caption-{number + 1}.npz" if number else "npz")


def inline_cells(job: Explainable) -> int:
    """How many cells each caption's or text's maps may have inside the result; 0: none are wanted.

    What a job may have is shared out evenly.
    """
    if job.explain is None or not job.explain.inline:
        return 0
    if isinstance(job, CaptionJob):
        return MOST_CELLS // job.options.num_return_sequences
    return MOST_CELLS // len(job.texts)


def preview(shown: "NDArray[np.uint8]") -> Preview:
    """The image as a result has it, of RGB [H, W, 3]."""
    file, (width, height) = jpeg(shown, size_of(shown), PREVIEW_PX, MOST_PREVIEW_BYTES)
    return Preview(data=b64encode(file).decode(), width=width, height=height)


def words_explained(
    found: "Explanation", text: str, placed: "PlacedGrid", maps: str | None, most_cells: int = 0
) -> WordsExplained:
    """What a result says of an explanation.

    maps: the URI of the file with its maps. most_cells: of its maps in the result; 0 is none.

    Raises:
        ValueError: for a method that is not served.
    """
    if found.method == "occlusion":
        raise ValueError("occlusion is not served")
    drawn: Sequence[str | None] = [None] * len(found.words)
    where: dict[str, Any] = {}
    if most_cells:
        lies, [cells] = fitted([found.maps], mapping(placed), most_cells)
        drawn = [b64encode(one.tobytes()).decode() for one in cells]
        rows, columns = cells.shape[1:]
        left, top = lies.origin
        corner = left + columns * lies.cell[0], top + rows * lies.cell[1]
        box = tuple(round(side, 2) for side in (left, top, *corner))
        where = {"map_grid": (rows, columns), "map_box": box}
    words = []
    for word, shares, inline in zip(found.words, found.maps, drawn, strict=True):
        at = placed.locate(shares)
        words.append(
            WordExplanation(
                text=word.text,
                logprob=word.logprob,
                peak=(round(at.peak[0], 1), round(at.peak[1], 1)),
                box=at.box,
                entropy=round(at.entropy, 4),
                coverage=min(1.0, at.coverage),
                map=inline,
            )
        )
    return WordsExplained(
        text=text, method=found.method, grid=found.grid, words=tuple(words), maps=maps, **where
    )
