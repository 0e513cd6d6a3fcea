"""Training batches: scenes drawn on the fly, with captions, false captions and patch classes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worker.training.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    KINDS,
    RELATIONS,
    SIZES,
    Scene,
    change,
    draw,
    mask,
    recolour,
    sample,
)

SIDE = 96
GRID = 8
CELLS = 6
IGNORED = -100  # the class that torch's cross-entropy leaves out
# OpenAI CLIP's normalisation, as in BLIP's preprocessor_config.json.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# What the dense auxiliary heads tell of each patch; class 0 is "no shape here".
DENSE = {
    "kind": 1 + len(KINDS),
    "colour": 1 + len(COLOURS),
    "size": 1 + len(SIZES),
    "place": 3,
    "relation": 1 + len(RELATIONS),
    "background": len(BACKGROUNDS),
}


@dataclass(frozen=True)
class Batch:
    """`pixels` float32 [B, 3, 96, 96], normalised; `dense` int64 [B, 64] for each of DENSE.

    `masks` float32 [B, 64, 36]: how much of each of a patch's 6 x 6 cells a shape covers.
    `false` are captions with one attribute changed.
    """

    pixels: Tensor
    captions: list[str]
    false: list[str]
    dense: dict[str, Tensor]
    masks: Tensor


def batch(size: int, seed: str, two: float, recoloured: bool = False) -> Batch:
    """A batch that depends on `seed` alone; each scene has two shapes with probability `two`.

    A `recoloured` one is for the dense loss only: its shapes have colours without a name.
    """
    rng = random.Random(seed)
    scenes = [sample(rng, 1 + (rng.random() < two)) for _ in range(size)]
    dense = [patch_classes(scene) for scene in scenes]
    if recoloured:
        scenes = [recolour(scene, rng) for scene in scenes]
        for classes in dense:
            classes["colour"][classes["colour"] > 0] = IGNORED
    return Batch(
        pixels=normalise([draw(scene, SIDE) for scene in scenes]),
        captions=[scene.caption for scene in scenes],
        false=[false_caption(scene, rng) for scene in scenes],
        dense={name: torch.from_numpy(np.stack([d[name] for d in dense])) for name in DENSE},
        masks=torch.from_numpy(np.stack([patch_masks(scene) for scene in scenes])),
    )


def normalise(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of 96 x 96 pixels as the ViT takes them, float32 [B, 3, 96, 96]."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    scaled = stacked.permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((scaled - mean) / std).contiguous()


def false_caption(scene: Scene, rng: random.Random) -> str:
    """A caption with one attribute changed that names no held-out combination."""
    while True:
        changed = change(scene, rng.choice(ATTRIBUTES), rng)
        if changed and not any(shape.combination in HELD_OUT for shape in changed.shapes):
            return changed.caption


def patch_classes(scene: Scene) -> dict[str, NDArray[np.int64]]:
    """For each name of DENSE the classes of the 8 x 8 patches, int64 [64].

    A patch belongs to the shape whose box contains its centre.
    """
    centre = (np.arange(GRID) + 0.5) / GRID
    classes = {name: np.zeros((GRID, GRID), np.int64) for name in DENSE}
    classes["background"][:] = list(BACKGROUNDS).index(scene.background)
    for place, shape in enumerate(scene.shapes):
        left, top, right, bottom = shape.box
        rows = (centre > top) & (centre < bottom)
        columns = (centre > left) & (centre < right)
        inside = rows[:, None] & columns[None, :]
        classes["kind"][inside] = 1 + KINDS.index(shape.kind)
        classes["colour"][inside] = 1 + list(COLOURS).index(shape.colour)
        classes["size"][inside] = 1 + SIZES.index(shape.size)
        classes["place"][inside] = 1 + place
        if scene.relation is not None:
            classes["relation"][inside] = 1 + RELATIONS.index(scene.relation)
    return {name: value.reshape(-1) for name, value in classes.items()}


def patch_masks(scene: Scene) -> NDArray[np.float32]:
    """The share of each cell that shapes cover, float32 [64, 36], 6 x 6 cells to a patch."""
    covered = np.asarray(mask(scene, GRID * CELLS)).astype(np.float32) / np.float32(255)
    cells = covered.reshape(GRID, CELLS, GRID, CELLS).transpose(0, 2, 1, 3)
    return cells.reshape(GRID * GRID, CELLS * CELLS)
