"""The caption filter (CapFilt, Li et al. 2022) with a calibrated threshold: right captions stay,
captions with one attribute wrong go.
"""

import random
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.blip import Engine
from worker.training.evaluate import parts, usual
from worker.training.scenes import ATTRIBUTES, Scene, change, draw

PAPERS_THRESHOLD = 0.5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Probabilities:
    """ITM probabilities of right captions, and of false ones by the attribute that is wrong."""

    right: Floats
    wrong: dict[str, Floats]

    @property
    def all_wrong(self) -> Floats:
        """Of all false captions."""
        return np.concatenate(list(self.wrong.values()))

    def kept(self, threshold: float) -> float:
        """The share of right captions that stay."""
        return float((self.right >= threshold).mean())

    def rejected(self, threshold: float) -> float:
        """The share of false captions that go."""
        return float((self.all_wrong < threshold).mean())


def filtering(engine: Engine, scenes: int, seed: str) -> dict[str, float]:
    """What the filter keeps and rejects on `scenes` scenes, at a threshold of as many others.

    Each scene has its right caption and one false caption for every attribute it has. The
    threshold is an ITM probability: Engine.match's, the service's `min_itm_probability`.
    """
    threshold = balanced(probabilities(engine, scenes, f"{seed}:calibration"))
    found = probabilities(engine, scenes, seed)
    return {
        "filter_threshold": threshold,
        "filter_kept": found.kept(threshold),
        "filter_rejected": found.rejected(threshold),
        **{
            f"filter_rejected_{attribute}": float((found.wrong[attribute] < threshold).mean())
            for attribute in ATTRIBUTES
            if attribute in found.wrong
        },
        "filter_kept_at_half": found.kept(PAPERS_THRESHOLD),
        "filter_rejected_at_half": found.rejected(PAPERS_THRESHOLD),
    }


def probabilities(engine: Engine, scenes: int, seed: str) -> Probabilities:
    """ITM probabilities of the right and the false captions of scenes that `seed` decides."""
    rng = random.Random(seed)
    right: list[float] = []
    wrong: dict[str, list[float]] = defaultdict(list)
    for part in parts(usual(rng, scenes)):
        false = [_false(scene, rng) for scene in part]
        texts = [
            [scene.caption, *changed.values()] for scene, changed in zip(part, false, strict=True)
        ]
        rows = engine.match([draw(scene) for scene in part], texts)
        for row, changed in zip(rows, false, strict=True):
            first, *others = [match.itm_probability for match in row]
            right.append(first)
            for attribute, probability in zip(changed, others, strict=True):
                wrong[attribute].append(probability)
    return Probabilities(np.array(right), {name: np.array(ps) for name, ps in wrong.items()})


def balanced(found: Probabilities) -> float:
    """Where the smaller of the shares kept and rejected is largest, and then their sum.

    Halfway between the probabilities on its two sides: not a caption's own.
    """
    every = np.unique(np.concatenate([found.right, found.all_wrong]))
    if len(every) < 2:
        return PAPERS_THRESHOLD
    between = (every[1:] + every[:-1]) / 2
    kept = 1 - np.searchsorted(np.sort(found.right), between) / len(found.right)
    rejected = np.searchsorted(np.sort(found.all_wrong), between) / len(found.all_wrong)
    smaller = np.minimum(kept, rejected).round(9)  # shares that differ in their last bits are equal
    return float(between[np.lexsort((kept + rejected, smaller))[-1]])


def _false(scene: Scene, rng: random.Random) -> dict[str, str]:
    """The scene's caption with one attribute changed, by the attributes that it has."""
    changed = {attribute: change(scene, attribute, rng) for attribute in ATTRIBUTES}
    return {attribute: other.caption for attribute, other in changed.items() if other}
