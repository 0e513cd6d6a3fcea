"""What was explained of one image: in a result's words, and as files for a sink.

The files are those of worker/pictures/written.py, whose image is called as the job is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from producer.contract import CaptionJob, ExplainJob, MatchJob, WordExplanation, WordsExplained
from worker.sink import uri_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.blip.explanation import Explanation
    from worker.blip.placement import PlacedGrid

__all__ = ["Explained", "maps_uri", "words_explained"]


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


def maps_uri(job: CaptionJob | MatchJob | ExplainJob, number: int) -> str | None:
    """Where the maps of an explanation of a job will be; None where they are not written."""
    if job.explain is None or job.explain.sink is None or job.job_id is None:
        return None
    return uri_of(job.explain.sink, job.job_id, f"caption-{number + 1}.npz" if number else "npz")


def words_explained(
    found: "Explanation", text: str, placed: "PlacedGrid", maps: str | None
) -> WordsExplained:
    """What a result says of an explanation. Raises ValueError for a method that is not served."""
    words = []
    for word, shares in zip(found.words, found.maps, strict=True):
        at = placed.locate(shares)
        words.append(
            WordExplanation(
                text=word.text,
                logprob=word.logprob,
                peak=(round(at.peak[0], 1), round(at.peak[1], 1)),
                box=at.box,
                entropy=round(at.entropy, 4),
                coverage=min(1.0, at.coverage),
            )
        )
    if found.method == "occlusion":
        raise ValueError("occlusion is not served")
    return WordsExplained(
        text=text, method=found.method, grid=found.grid, words=tuple(words), maps=maps
    )
