"""What a map says, in words."""

from math import exp

from worker.blip.explanation import ExplainedWord, Method
from worker.blip.placement import Point

_PLACES = (
    ("upper left", "upper middle", "upper right"),
    ("middle left", "the middle", "middle right"),
    ("lower left", "lower middle", "lower right"),
)

METHODS_SAID: dict[Method, str] = {
    "attention": "cross-attention of the text",
    "rollout": "cross-attention, followed through the image encoder to the patches",
    "gradcam": "cross-attention, weighted by its gradient",
    "occlusion": "what is lost where the image is hidden",
}


def probability(word: ExplainedWord) -> float | None:
    """Of the word after those before it; None for a text that was matched."""
    return None if word.logprob is None else exp(min(0.0, word.logprob))


def where(at: Point, width: int, height: int) -> str:
    """Which ninth of an image of width x height pixels a point lies in."""
    column, row = (
        min(2, max(0, int(3 * place / side)))
        for place, side in zip(at, (width, height), strict=True)
    )
    return _PLACES[row][column]


def said(word: ExplainedWord, peak: Point, width: int, height: int) -> str:
    """As "circle: probability 0.93, looked at upper left"; `peak` on an image of width x height."""
    sure = probability(word)
    likely = "" if sure is None else f"probability {sure:.2f}, "
    return f"{word.text}: {likely}looked at {where(peak, width, height)}"
