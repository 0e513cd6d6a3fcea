"""What each resolution mode is worth on images four times as wide as high, and the reverse.

python -m worker.training.modes [MODEL] [--scenes N] [--seed TEXT] [--json]
"""

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from PIL import Image

from worker.blip import Engine
from worker.blip.geometry import MODES, Mode
from worker.training.evaluate import BATCH, BUNDLED
from worker.training.evaluated import MAX_TOKENS
from worker.training.scenes import MARGIN, Box, Scene, Shape, draw, sample

SEED = "modes"
CANVASES = {"4:1": (2.0, 0.5), "1:4": (0.5, 2.0)}
"""(width, height) in sides of the square scenes: these have its area, and shapes of its sizes."""
_DRAWN_AT = 4  # pictures have this many times the checkpoint's pixels along each side

KINDS = {
    "anywhere": "one shape, anywhere",
    "middle": "one shape, in the middle",
    "two": "two shapes, far apart",
}


@dataclass(frozen=True)
class Figure:
    """Shares of 0 to 1. `exact`: the whole caption is right. `named`: its colours, shapes and
    relation are, whatever it says of sizes (which padding and cropping change) and background."""

    mode: Mode
    resolution: int
    image: str
    kind: str
    exact: float
    named: float


def evaluate_modes(
    directory: Path | str, scenes: int = 200, seed: str = SEED, sides: Sequence[int] = (1, 2)
) -> list[Figure]:
    """Captions of the same scenes in every mode, run by the engine in float32 on the CPU.

    Greedy captions of `scenes` scenes for each shape of image and kind of scene: one shape anywhere
    or in the middle, or two far apart ("left of" in wide images, "above" in tall ones). Resolutions
    are the checkpoint's own times each of `sides`.
    """
    engine = Engine.load(directory, tasks=["caption"])
    side = engine.image_size[0]
    figures = []
    for image, canvas in CANVASES.items():
        for kind in KINDS:
            rng = random.Random(f"{seed} {image} {kind}")
            sampled = [elongated(rng, canvas, kind) for _ in range(scenes)]
            for resolution, mode in product([side * times for times in sides], MODES):
                exact = named = 0
                for start in range(0, scenes, BATCH):
                    part = sampled[start : start + BATCH]
                    pictures = [draw(scene, _DRAWN_AT * side, canvas) for scene in part]
                    said = _captions(engine, pictures, mode, resolution)
                    for text, scene in zip(said, part, strict=True):
                        exact += text == scene.caption
                        named += _named(text) == _named(scene.caption)
                share = exact / scenes, named / scenes
                figures.append(Figure(mode, resolution, image, kind, *share))
    return figures


def _named(caption: str) -> str:
    return re.sub(r" on \w+$", "", re.sub(r"\b(small|large) ", "", caption))


def elongated(rng: random.Random, canvas: tuple[float, float], kind: str) -> Scene:
    """A scene on a canvas of another shape than a square; boxes are in sides, as its own are.

    Its shapes, their sizes and colours are those of a square scene, moved.
    """
    along = 0 if canvas[0] > canvas[1] else 1
    relation = ("left of", "above")[along]
    scene = sample(rng, 2 if kind == "two" else 1)
    while scene.relation not in (None, relation):
        scene = sample(rng, 2)
    parts = len(scene.shapes)
    shapes = []
    for number, shape in enumerate(scene.shapes):
        radius = (shape.box[2] - shape.box[0]) / 2
        centre = [0.0, 0.0]
        for axis, extent in enumerate(canvas):
            low, high = radius + MARGIN, extent - radius - MARGIN
            if axis == along and parts == 2:  # each in its own half, off the line between them
                low, high = low + number * extent / 2, high - (1 - number) * extent / 2
            centre[axis] = extent / 2 if kind == "middle" else rng.uniform(low, high)
        shapes.append(_moved(shape, (centre[0], centre[1]), radius))
    return Scene(tuple(shapes), scene.background, scene.background_rgb, scene.relation)


def _moved(shape: Shape, centre: tuple[float, float], radius: float) -> Shape:
    x, y = centre
    box: Box = (x - radius, y - radius, x + radius, y + radius)
    return Shape(shape.kind, shape.colour, shape.size, box, shape.rgb)


def _captions(
    engine: Engine, images: Sequence[Image.Image], mode: Mode, resolution: int
) -> list[str]:
    found = engine.caption(
        list(images),
        mode=mode,
        resolution=resolution,
        num_beams=1,
        min_new_tokens=0,
        max_new_tokens=MAX_TOKENS,
    )
    return [captions[0].text for captions in found]


def report(figures: Sequence[Figure]) -> str:
    """The figures as a table in Markdown, each cell "exact / named" in percent."""
    lines = [
        "| image | resolution | mode | " + " | ".join(KINDS.values()) + " |",
        "|---|---|---|" + "---|" * len(KINDS),
    ]
    for image, resolution, mode in dict.fromkeys((f.image, f.resolution, f.mode) for f in figures):
        cells = [
            f"{figure.exact:.0%} / {figure.named:.0%}"
            for figure in figures
            if (figure.image, figure.resolution, figure.mode) == (image, resolution, mode)
        ]
        lines.append(f"| {image} | {resolution} | {mode} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the figures of a model folder, as a table or as JSON."""
    parser = argparse.ArgumentParser(description="Captions of 4:1 and 1:4 scenes in every mode.")
    parser.add_argument("model", nargs="?", type=Path, default=BUNDLED, help="a model folder")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = evaluate_modes(given.model, given.scenes, given.seed)
    print(json.dumps([asdict(f) for f in figures]) if given.json else report(figures))


if __name__ == "__main__":
    main()
