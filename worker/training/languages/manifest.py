"""Writes scenes as a manifest that `captionq-worker finetune` takes like any user's.

    python -m worker.training.languages.manifest --language de -o DIR [--scenes N] [--seed TEXT]

DIR/manifest.jsonl has a line for each image and language: image, caption, language. Which scenes
they are follows from the seed alone, so that fewer are the first of more.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from worker.training.evaluate import SEED as EVALUATION
from worker.training.languages import caption
from worker.training.scenes import SEEN, draw, sample

FILE = "manifest.jsonl"


def write(folder: Path, languages: Sequence[str], scenes: int, seed: str) -> Path:
    """Write images and their manifest, whose path is returned. Six in ten scenes have two shapes.

    Raises:
        ValueError: the seed is the evaluation's, or a language has no captions of scenes.
    """
    if seed == EVALUATION:
        raise ValueError(f"the seed {seed!r} draws the scenes that packs are evaluated on")
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    table = folder / FILE
    with table.open("w", encoding="utf-8") as file:
        for number in range(scenes):
            scene = sample(rng, 1 + (number % 5 < 3), SEEN)
            name = f"{number:06}.png"
            draw(scene).save(images / name)
            for language in languages:
                said = caption(scene, language)
                row = {"image": f"images/{name}", "caption": said, "language": language}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the manifest, and says where it is."""
    parser = argparse.ArgumentParser(description="Scenes with captions, as a manifest.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--language", action="append", required=True, metavar="TAG", help="repeat for more"
    )
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--seed", default="training")
    given = parser.parse_args(arguments)
    try:
        print(write(given.output, given.language, given.scenes, given.seed))
    except ValueError as exc:
        parser.error(str(exc))


if __name__ == "__main__":
    main()
