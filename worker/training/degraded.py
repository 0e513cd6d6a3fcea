"""Scenes that are hard to make out, each with its caption and a false one: calibration's pairs.

python -m worker.training.degraded -o FOLDER [--clean] [--scenes N] [--seed TEXT]

writes them as images beside a `pairs.csv` for `captionq-worker calibrate`.
"""

import argparse
import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from worker.blip import Engine, Pack
from worker.calibration import Calibration
from worker.training.calibrate import fit
from worker.training.calibrate import report as report_of_calibration
from worker.training.evaluate import BATCH, falsified, usual
from worker.training.scenes import draw
from worker.training.scores import Scores, Scoring, batched

SEED = "degraded"
BLUR_PIXELS = (2.0, 4.0)  # radius, in images of 96 pixels
NOISE_LEVELS = (15.0, 45.0)  # standard deviation, of 255
CROP_SHARES = (0.7, 0.95)  # of each side, of what is left
ROC_AUC = (0.80, 0.95)
LEAST_BEFORE = 0.08
MOST_AFTER = 0.03
"""What the bundled checkpoint is held to: the area under the curve, the calibration errors."""


@dataclass(frozen=True)
class Drawn:
    """An image with the caption of its scene, and that with one attribute changed.

    A crop may have cut off what its caption tells of: labels are the scene's, as people's are that
    of what they know.
    """

    image: Image.Image
    caption: str
    false: str


def drawn(scenes: int, seed: str = SEED, clean: bool = False) -> Iterator[Drawn]:
    """Scenes that follow from `seed`, each degraded in one way unless they are to be clean."""
    rng = random.Random(seed)
    for scene in usual(rng, scenes):
        image = draw(scene)
        _, false = falsified(scene, rng)
        yield Drawn(image if clean else degrade(image, rng), scene.caption, false)


def degrade(image: Image.Image, rng: random.Random) -> Image.Image:
    """A blurred, a noisy or a cropped image of the same size."""
    return rng.choice((_blurred, _noisy, _cropped))(image, rng)


def _blurred(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR_PIXELS)))


def _noisy(image: Image.Image, rng: random.Random) -> Image.Image:
    normal = np.random.default_rng(rng.randrange(2**32)).normal
    pixels = np.asarray(image) + normal(0, rng.uniform(*NOISE_LEVELS), (*image.size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = image.size
    share = rng.uniform(*CROP_SHARES)
    left, top = (rng.uniform(0, side * (1 - share)) for side in image.size)
    box = (left, top, left + share * width, top + share * height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box)


def scored(engine: Engine, pictures: Iterator[Drawn], pack: Pack | None = None) -> Scores:
    """Each image's true caption and its false one, matched."""
    scoring = Scoring()
    for part in batched(pictures, BATCH):
        texts = [[one.caption, one.false] for one in part]
        for matches in engine.match([one.image for one in part], texts, pack=pack):
            scoring.add(matches, [True, False])
    return scoring.scores()


def evaluate_calibration(
    directory: Path | str, scenes: int = 4000, seed: str = SEED, dtype: str = "float32"
) -> Calibration:
    """A calibration of a model folder, run on the CPU, fitted on half of `scenes` degraded scenes.

    Its figures are those of the other half.
    """
    engine = Engine.load(directory, dtype=dtype, tasks=["match"])
    return fit(
        scored(engine, drawn(scenes, seed)),
        model_id=engine.model_id,
        revision=engine.revision,
        position_zero=engine.position_zero,
    )


def report(calibration: Calibration) -> str:
    """The figures, and what the published checkpoint is held to."""
    low, high = ROC_AUC
    return (
        f"{report_of_calibration(calibration)}\n"
        f"(bars: ROC AUC {low:g} to {high:g}, calibration error at least {LEAST_BEFORE:g} before, "
        f"at most {MOST_AFTER:g} after)"
    )


def write(folder: Path, pictures: Iterator[Drawn]) -> Path:
    """Write images and their `pairs.csv` (columns image, text, label), whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "pairs.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "text", "label"])
        for number, one in enumerate(pictures):
            name = f"{number:05}.png"
            one.image.save(folder / name)
            rows.writerows([[name, one.caption, 1], [name, one.false, 0]])
    return table


def main() -> None:
    """Writes the pairs, and says where their table is."""
    parser = argparse.ArgumentParser(description="Scenes with true and false captions.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--clean", action="store_true", help="draw them without blur, noise, crops")
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--seed", default=SEED)
    given = parser.parse_args()
    print(write(given.output, drawn(given.scenes, given.seed, given.clean)))


if __name__ == "__main__":
    main()
