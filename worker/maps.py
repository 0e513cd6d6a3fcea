"""What was explained of one image: in a result's words, and as files for a sink.

A file is an .npz for each caption or text, as worker/pictures/written.py says: JOB_ID.npz, then
JOB_ID.2.npz and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producer.contract import CaptionJob, ExplainJob, MatchJob, WordExplanation, WordsExplained
from worker.sink import uri_of

if TYPE_CHECKING:
    from worker.blip.explanation import Explanation
    from worker.blip.placement import PlacedGrid

__all__ = ["Explained", "maps_uri", "suffix", "words_explained"]


@dataclass(frozen=True, eq=False)
class Explained:
    """What was explained of one image, and the image that it is placed on."""

    explanations: "Sequence[Explanation]"
    placed: "PlacedGrid"

    def files(self) -> dict[str, bytes]:
        """The files, by their suffixes."""
        from worker.pictures.written import arrays

        return {
            suffix(number): arrays(one, self.placed) for number, one in enumerate(self.explanations)
        }


def suffix(number: int) -> str:
    """Of the file of the explanation with this number, from 0."""
    return f"{number + 1}.npz" if number else "npz"


def maps_uri(job: CaptionJob | MatchJob | ExplainJob, number: int) -> str | None:
    """Where the maps of an explanation of a job will be; None where they are not written."""
    if job.explain is None or job.explain.sink is None or job.job_id is None:
        return None
    return uri_of(job.explain.sink, job.job_id, suffix(number))


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
