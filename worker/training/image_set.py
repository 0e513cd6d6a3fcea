"""What can be said of explanations of any images, whose boxes nobody knows.

Whether maps matter to the model (faithfulness.py), and where it looks on the whole: the mean of the
maps of a set, and how much of it lies in the middle and along the border. A model that always looks
at the middle, or whose maps gather at an edge, shows it here.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from worker.blip import Engine
from worker.blip.explanation import DEFAULT_METHOD, Method
from worker.training.faithfulness import curves, order_of, sign_test
from worker.training.pointing import mass_in

CENTRE = (0.25, 0.25, 0.75, 0.75)
INNER = (0.125, 0.125, 0.875, 0.875)
EVEN_CENTRE, EVEN_BORDER = 0.25, 0.4375
"""What an even map has in CENTRE, and outside INNER."""
SEED = "image set"
_IMAGES = 32


@dataclass(frozen=True)
class SetFigures:
    """Of a set of images, each with the caption that the model gives it.

    mean_map     [rows][columns], the mean of all words' maps
    centre, border  its shares in the middle quarter, and outside three quarters of each side
    entropy      of a word's map, in nats, mean
    deletion, insertion  areas, mean; random_: in random order; _p: that it makes no difference
    """

    method: Method
    images: int
    words: int
    mean_map: list[list[float]]
    centre: float
    border: float
    entropy: float
    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    deletion_p: float
    insertion_p: float


def evaluate_images(
    engine: Engine, images: Iterable[NDArray[np.uint8]], method: Method = DEFAULT_METHOD
) -> SetFigures:
    """The figures of images, uint8 [H, W, 3], squashed to the checkpoint's own size.

    Raises ValueError where there are none.
    """
    rng = random.Random(SEED)
    looked: NDArray[np.float64] = np.zeros(1)
    entropies, words = 0.0, 0  # sums: of maps there may be millions
    deletion, insertion = [], []
    for part in _parts(images):
        pixels = engine.normalised(part)
        encoded = engine.encode(pixels)
        captions = engine.caption(encoded)
        rows = engine.explain(pixels, captions, method=method)
        explained = [one for row in rows for one in row if one.words]
        named = [number for number, row in enumerate(rows) for one in row if one.words]
        if not explained:
            continue
        maps = np.concatenate([one.maps for one in explained]).astype(np.float64)
        looked = looked + maps.sum(axis=0)
        entropies -= float((maps * np.log(np.where(maps > 0, maps, 1))).sum())
        words += len(maps)
        patches = range(maps[0].size)
        by_chance = [np.array(rng.sample(patches, len(patches))) for _ in explained]
        texts, grid = [one.text for one in explained], explained[0].grid
        areas = [
            curves(engine, pixels[named], grid, texts, orders)
            for orders in ([order_of(one) for one in explained], by_chance)
        ]
        deletion.append([area.deletion for area in areas])  # in the map's order, in a random one
        insertion.append([area.insertion for area in areas])
    if not words:
        raise ValueError("there are no images to explain")
    mean = (looked / words).astype(np.float32)
    deleted, inserted = np.concatenate(deletion, axis=1), np.concatenate(insertion, axis=1)
    return SetFigures(
        method=method,
        images=deleted.shape[1],
        words=words,
        mean_map=mean.tolist(),
        centre=mass_in(mean, CENTRE),
        border=1 - mass_in(mean, INNER),
        entropy=entropies / words,
        deletion=float(deleted[0].mean()),
        insertion=float(inserted[0].mean()),
        random_deletion=float(deleted[1].mean()),
        random_insertion=float(inserted[1].mean()),
        deletion_p=sign_test(*deleted),
        insertion_p=sign_test(*inserted),
    )


def report(figures: SetFigures) -> str:
    """The figures in a few lines, the mean map in per mille."""
    of = f"{figures.images} images, {figures.words} words, {figures.method}"
    rows = [" ".join(f"{1000 * share:4.0f}" for share in row) for row in figures.mean_map]
    looks = (
        f"centre {figures.centre:.1%} (an even map {EVEN_CENTRE:.1%}), "
        f"border {figures.border:.1%} (even {EVEN_BORDER:.1%}), entropy {figures.entropy:.2f}"
    )
    deletion = (
        f"deletion {figures.deletion:.2f} nats a token, in random order "
        f"{figures.random_deletion:.2f} (p {figures.deletion_p:.0e})"
    )
    insertion = (
        f"insertion {figures.insertion:.2f} nats a token, in random order "
        f"{figures.random_insertion:.2f} (p {figures.insertion_p:.0e})"
    )
    return "\n".join([f"{of}; mean map, per mille:", *rows, looks, deletion, insertion])


def _parts(images: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    several = iter(images)
    while part := list(islice(several, _IMAGES)):
        yield part
