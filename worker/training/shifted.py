"""Scenes of another domain: other paints, other words, and pairs of them for `finetune`.

What the bundled checkpoint calls "a large pink circle on gray" is drawn here in a deep rose on
slate and called "a large rose circle on slate". It has never seen the paints, nor read half of the
colours' words, which it can only spell: a domain as a factory's or a clinic's images are one, small
enough to be learned in minutes.

python -m worker.training.shifted -o FOLDER [--scenes N] [--replay N] [--seed TEXT]

writes images beside a `pairs.jsonl` (image, caption, match): each scene with its caption and with
one of which one attribute is wrong. `--replay` scenes of the old domain are mixed in likewise, so
that it is not forgotten.

python -m worker.training.shifted --score PACK [--scenes N]

prints ITM's ROC AUC on unseen scenes of both domains, of the checkpoint and of the pack.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from worker.blip import Engine, Pack
from worker.training.degraded import Drawn, scored
from worker.training.degraded import drawn as drawn_as_before
from worker.training.evaluate import BUNDLED, auc, falsified, usual
from worker.training.scenes import Colour, Scene, draw

SEED = "shifted"
UNSEEN = f"{SEED}:unseen"
PAINTS: dict[str, Colour] = {
    "red": (150, 15, 45),
    "green": (20, 110, 90),
    "blue": (25, 30, 115),
    "yellow": (190, 160, 60),
    "purple": (190, 130, 220),
    "orange": (180, 95, 50),
    "cyan": (130, 225, 200),
    "pink": (235, 90, 120),
}
GROUNDS: dict[str, Colour] = {
    "white": (235, 240, 225),
    "gray": (85, 95, 110),
    "black": (40, 25, 30),
    "beige": (175, 195, 170),
}
WORDS = {
    "purple": "lilac", "orange": "rust", "cyan": "mint", "pink": "rose",
    "gray": "slate", "black": "soot",
}  # fmt: skip
"""What captions of the domain say in place of the bundled checkpoint's words."""
JITTER = 10


def reworded(caption: str) -> str:
    """A caption as the domain has it; words that are not in WORDS stay."""
    return " ".join(WORDS.get(word, word) for word in caption.split())


def repainted(scene: Scene, rng: random.Random) -> Scene:
    """A scene in the domain's paints; its caption is what it was."""

    def near(paint: Colour) -> Colour:
        red, green, blue = (min(255, max(0, v + rng.randint(-JITTER, JITTER))) for v in paint)
        return red, green, blue

    shapes = tuple(replace(shape, rgb=near(PAINTS[shape.colour])) for shape in scene.shapes)
    return replace(scene, shapes=shapes, background_rgb=near(GROUNDS[scene.background]))


def drawn(scenes: int, seed: str = SEED) -> Iterator[Drawn]:
    """Scenes of the domain that follow from `seed`, each with its caption and a false one."""
    rng = random.Random(seed)
    for scene in usual(rng, scenes):
        _, false = falsified(scene, rng)
        image = draw(repainted(scene, rng))
        yield Drawn(image, reworded(scene.caption), reworded(false))


def write(folder: Path, scenes: int, replay: int, seed: str = SEED) -> Path:
    """Write images and their `pairs.jsonl`, whose path is returned.

    Raises:
        ValueError: the seed draws the scenes that packs are judged on.
    """
    if seed == UNSEEN:
        raise ValueError(f"the seed {seed!r} draws the scenes that packs are judged on")
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "pairs.jsonl"
    old = drawn_as_before(replay, f"{seed}:replay", clean=True)
    with table.open("w", encoding="utf-8") as file:
        for domain, pictures in (("shifted", drawn(scenes, seed)), ("replay", old)):
            for number, one in enumerate(pictures):
                name = f"{domain}-{number:05}.png"
                one.image.save(folder / name)
                for caption, match in ((one.caption, 1), (one.false, 0)):
                    row = {"image": name, "caption": caption, "match": match}
                    file.write(json.dumps(row) + "\n")
    return table


def score(pack: Path, scenes: int, model: Path = BUNDLED) -> dict[str, tuple[float, float]]:
    """ITM's ROC AUC by domain on unseen scenes: of the checkpoint, and of the pack."""
    engine = Engine.load(model, tasks=["match"])
    loaded = engine.load_pack(pack)

    def of(pictures: Iterator[Drawn], pack: Pack | None) -> float:
        found = scored(engine, pictures, pack)
        return auc(found.margins[found.labels].tolist(), found.margins[~found.labels].tolist())

    seed = UNSEEN
    return {
        "shifted": (of(drawn(scenes, seed), None), of(drawn(scenes, seed), loaded)),
        "old": (
            of(drawn_as_before(scenes, seed, clean=True), None),
            of(drawn_as_before(scenes, seed, clean=True), loaded),
        ),
    }


def main() -> None:
    """Writes the pairs, and says where their table is; or prints what a pack is worth."""
    parser = argparse.ArgumentParser(description="Pairs of a shifted domain, for finetune.")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("-o", "--output", type=Path, help="the folder to write")
    asked.add_argument("--score", type=Path, metavar="PACK", help="a match pack's folder")
    parser.add_argument("--scenes", type=int, help="3000; with --score 1000 of each domain")
    parser.add_argument("--replay", type=int, default=1500)
    parser.add_argument("--seed", default=SEED)
    given = parser.parse_args()
    if given.score is None:
        try:
            print(write(given.output, given.scenes or 3000, given.replay, given.seed))
        except ValueError as exc:
            parser.error(str(exc))
        return
    for domain, (before, after) in score(given.score, given.scenes or 1000).items():
        print(f"{domain:8} ROC AUC {before:.4f}, with the pack {after:.4f}")


if __name__ == "__main__":
    main()
