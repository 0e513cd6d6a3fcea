"""Whether maps point at what their words name: scenes know where their shapes are.

Pointing game (Zhang et al. 2016): the peak of a map lies in the box of the shape that the word
names, or does not. Beside it the share of the map that lies in the box.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.blip import Explanation
from worker.blip.placement import peak
from worker.training.scenes import COLOURS, KINDS, Box, Scene


@dataclass(frozen=True)
class Pointing:
    """Shares of 0 to 1, over words.

    accuracy     of words whose peak is in their shape's box
    mass_in_box  of the maps, mean
    chance       the boxes' area, mean: what a peak, or mass, anywhere would give
    swapped      accuracy with the other shape's box in place of the word's; None for one shape
    words        how many
    """

    accuracy: float
    mass_in_box: float
    chance: float
    swapped: float | None
    words: int


def pointing(scenes: Sequence[Scene], explanations: Sequence[Explanation]) -> Pointing:
    """The figures of scenes that all have one shape, or all two, each with its caption explained.

    Words of colours and kinds count; those of sizes, relations and backgrounds do not.
    """
    hits: list[bool] = []
    masses: list[float] = []
    areas: list[float] = []
    swapped: list[bool] = []
    for scene, explanation in zip(scenes, explanations, strict=True):
        for word, shape in named(scene, [word.text for word in explanation.words]):
            box, shares = scene.shapes[shape].box, explanation.maps[word]
            hits.append(_inside(_peak(shares), box))
            masses.append(mass_in(shares, box))
            areas.append((box[2] - box[0]) * (box[3] - box[1]))
            if len(scene.shapes) == 2:
                swapped.append(_inside(_peak(shares), scene.shapes[1 - shape].box))
    return Pointing(
        accuracy=float(np.mean(hits)),
        mass_in_box=float(np.mean(masses)),
        chance=float(np.mean(areas)),
        swapped=float(np.mean(swapped)) if swapped else None,
        words=len(hits),
    )


def named(scene: Scene, words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The places of the words of a scene's caption that name a shape, each with the shape's."""
    shape = 0
    for place, word in enumerate(words):
        if word in COLOURS or word in KINDS:
            yield place, shape
        if word in KINDS:
            shape += 1
    if shape != len(scene.shapes):
        raise ValueError(
            f"{' '.join(words)!r} does not name the scene's {len(scene.shapes)} shapes"
        )


def mass_in(shares: NDArray[np.float32], box: Box) -> float:
    """The share of a map in a box of unit coordinates, patches by the part of them inside."""
    rows, columns = shares.shape
    across = _overlap(columns, box[0], box[2])
    down = _overlap(rows, box[1], box[3])
    return float(down @ shares @ across)


def _overlap(cells: int, low: float, high: float) -> NDArray[np.float64]:
    """The part of each of so many cells of the unit interval that is between low and high."""
    edges = np.clip(np.linspace(0, 1, cells + 1), low, high)
    return np.diff(edges) * cells


def _peak(shares: NDArray[np.float32]) -> tuple[float, float]:
    rows, columns = shares.shape
    row, column = peak(shares)
    return column / columns, row / rows


def _inside(point: tuple[float, float], box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
