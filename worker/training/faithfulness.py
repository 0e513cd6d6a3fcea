"""Whether maps matter to the model: patches taken away, or given, in their order (RISE).

Petsiuk et al. 2018. A caption's map is the mean of its words' maps. Deletion hides patches from the
largest share on: the caption's log-probability should fall early, so a small area is good.
Insertion starts with all hidden and shows them in the same order: a large area is good. Areas are
under the log-probability of a token of the caption, over the share of patches, in nats. Patches are
hidden as by occlusion. No boxes are needed: it works on any image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.blip import Engine, Explanation
from worker.blip.geometry import Grid
from worker.blip.occlusion import median_colour
from worker.training.best_of import mcnemar

STEPS = 16
_IMAGES = 64  # of which curves are taken at once


@dataclass(frozen=True)
class Curves:
    """Areas of each image, float64 [N]."""

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]


def order_of(explanation: Explanation) -> NDArray[np.int64]:
    """Patches, the largest share of a caption's map first; row by row."""
    return np.argsort(-explanation.maps.mean(axis=0).ravel(), kind="stable")


def curves(
    engine: Engine,
    pixels: Tensor,
    grid: Grid,
    texts: Sequence[str],
    orders: Sequence[NDArray[np.int64]],
) -> Curves:
    """The areas of images, float [N, 3, H, W], normalised, each with a caption and an order."""
    deletion, insertion = [], []
    for start in range(0, len(texts), _IMAGES):
        part = slice(start, start + _IMAGES)
        deleted, inserted = [], []
        for step in range(STEPS + 1):
            hidden = torch.stack([_first(order, step, grid) for order in orders[part]])
            deleted.append(_logprobs(engine, _hidden(pixels[part], hidden), texts[part]))
            inserted.append(_logprobs(engine, _hidden(pixels[part], ~hidden), texts[part]))
        deletion.append(np.trapezoid(deleted, dx=1 / STEPS, axis=0))
        insertion.append(np.trapezoid(inserted, dx=1 / STEPS, axis=0))
    return Curves(np.concatenate(deletion), np.concatenate(insertion))


def sign_test(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Two-sided p that paired values differ by chance: no shape of their differences is assumed."""
    return mcnemar(int((one < other).sum()), int((one > other).sum()))


def _first(order: NDArray[np.int64], step: int, grid: Grid) -> Tensor:
    """bool [rows, columns]: the patches that come first, those of so many of STEPS parts."""
    mask = np.zeros(len(order), bool)
    mask[order[: round(len(order) * step / STEPS)]] = True
    return torch.from_numpy(mask.reshape(grid))


def _hidden(pixels: Tensor, hidden: Tensor) -> Tensor:
    """Pixels with their image's median colour where bool [N, rows, columns] says so."""
    patch = pixels.shape[2] // hidden.shape[1]
    over = hidden.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return torch.where(over[:, None].to(pixels.device), median_colour(pixels), pixels)


def _logprobs(engine: Engine, pixels: Tensor, texts: Sequence[str]) -> NDArray[np.float64]:
    """Log-probability of each image's caption per token, [SEP] left out."""
    rows = engine.explain(pixels, [[text] for text in texts])
    found = []
    for [one] in rows:
        logprobs = [word.logprob or 0.0 for word in one.words]
        found.append(sum(logprobs) / sum(word.last - word.first + 1 for word in one.words))
    return np.array(found)
