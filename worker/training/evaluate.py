"""What a captioner and matcher of scenes is worth: captions, ITM, ITC on scenes it never saw.

python -m worker.training.evaluate [MODEL] [--scenes N] [--seed TEXT] [--dtype DTYPE] [--json]
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.blip import Engine
from worker.training.evaluated import Model, served
from worker.training.scenes import ATTRIBUTES, HELD_OUT, SEEN, Scene, change, draw, sample

BUNDLED = Path(__file__).parents[1] / "checkpoints" / "scenes"
SEED = "evaluation"
POOL = 100
BATCH = 50
BARS = {
    "caption_exact": 0.95,
    "caption_exact_held_out": 0.9,
    "itm_auc": 0.98,
    "itc_recall_at_1": 0.9,
}


def evaluate(
    directory: Path | str, scenes: int = 2000, seed: str = SEED, dtype: str = "float32"
) -> dict[str, float]:
    """The figures of a model folder, run by the engine on the CPU.

    In another type than float32 there is one more, `caption_agreement`: the share of scenes whose
    caption is float32's, word for word.
    """
    model = served(Engine.load(directory, dtype=dtype))
    figures = evaluate_model(model, scenes, seed)
    if dtype != "float32":
        exact = served(Engine.load(directory, tasks=["caption"]))
        drawn = usual(random.Random(seed), scenes)
        same = [a == b for a, b in zip(_said(model, drawn), _said(exact, drawn), strict=True)]
        figures["caption_agreement"] = float(np.mean(same))
    return figures


def evaluate_model(model: Model, scenes: int = 2000, seed: str = SEED) -> dict[str, float]:
    """The figures of `model` on `scenes` scenes, six in ten with two shapes; shares are 0..1.

    The held-out split is half as many scenes more, each with at least one size-colour-kind
    combination that training never shows. ITM's negatives are the true caption with one attribute
    changed. ITC looks up each image's caption among 100 distinct ones, over several such pools.
    """
    rng = random.Random(seed)
    drawn = usual(rng, scenes)
    held_out = [sample(rng, 1 + (i % 5 < 3), SEEN, HELD_OUT) for i in range(scenes // 2)]
    return {
        **_captions(model, drawn, held_out),
        **_matching(model, drawn, rng),
        **_retrieval(model, drawn, rng),
    }


def usual(rng: random.Random, scenes: int) -> list[Scene]:
    """Scenes of combinations that training shows, six in ten with two shapes."""
    return [sample(rng, 1 + (i % 5 < 3), SEEN) for i in range(scenes)]


def _captions(model: Model, drawn: list[Scene], held_out: list[Scene]) -> dict[str, float]:
    right = _right(model, drawn)
    two = np.array([scene.relation is not None for scene in drawn])
    return {
        "caption_exact": float(right.mean()),
        "caption_exact_one_shape": float(right[~two].mean()),
        "caption_exact_two_shapes": float(right[two].mean()),
        "caption_exact_held_out": float(_right(model, held_out).mean()),
    }


def _right(model: Model, scenes: list[Scene]) -> NDArray[np.bool_]:
    said = zip(_said(model, scenes), scenes, strict=True)
    return np.array([text == scene.caption for text, scene in said], dtype=bool)


def _said(model: Model, scenes: list[Scene]) -> list[str]:
    said: list[str] = []
    for part in parts(scenes):
        said += model.caption([draw(scene) for scene in part])
    return said


def _matching(model: Model, scenes: list[Scene], rng: random.Random) -> dict[str, float]:
    positive: list[float] = []
    negative: dict[str, list[float]] = defaultdict(list)
    for part in parts(scenes):
        false = [falsified(scene, rng) for scene in part]
        images = [draw(scene) for scene in part]
        positive += model.match(images, [scene.caption for scene in part])
        scores = model.match(images, [caption for _, caption in false])
        for (attribute, _), score in zip(false, scores, strict=True):
            negative[attribute].append(score)
    together = [score for scores in negative.values() for score in scores]
    return {
        "itm_auc": auc(positive, together),
        **{f"itm_auc_{a}": auc(positive, negative[a]) for a in ATTRIBUTES if negative[a]},
    }


def falsified(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """An attribute that the scene has, and its caption with that changed."""
    while True:
        attribute = rng.choice(ATTRIBUTES)
        if changed := change(scene, attribute, rng):
            return attribute, changed.caption


def _retrieval(model: Model, scenes: list[Scene], rng: random.Random) -> dict[str, float]:
    """Mean recall@1 of image-to-text over as many pools as the scenes fill, at most ten."""
    distinct = list({scene.caption: scene for scene in scenes}.values())
    rng.shuffle(distinct)
    size = min(POOL, len(distinct))
    recalls = []
    for start in range(0, len(distinct) - size + 1, size)[:10]:
        pool = distinct[start : start + size]
        images = model.embed_images([draw(scene) for scene in pool])
        texts = model.embed_texts([scene.caption for scene in pool])
        recalls.append(float(((images @ texts.T).argmax(1) == np.arange(size)).mean()))
    return {"itc_recall_at_1": float(np.mean(recalls)), "itc_pool": float(size)}


def parts(scenes: list[Scene]) -> list[list[Scene]]:
    """Scenes in batches, in order."""
    return [scenes[i : i + BATCH] for i in range(0, len(scenes), BATCH)]


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """ROC AUC: the share of (positive, negative) pairs in the right order, ties counting half."""
    low = np.sort(np.asarray(negative))
    below = np.searchsorted(low, positive, "left") + np.searchsorted(low, positive, "right")
    return float(below.mean() / (2 * len(low)))


def report(figures: dict[str, float]) -> str:
    """The figures, one a line, with what the published checkpoint is held to."""
    lines = []
    for name, value in figures.items():
        bar = f"   (at least {BARS[name]:g})" if name in BARS else ""
        lines.append(f"{name:<26} {value:7.4f}{bar}")
    return "\n".join(lines)


def main() -> None:
    """Prints the figures of a model folder, as lines or as JSON."""
    parser = argparse.ArgumentParser(description="Caption, ITM and ITC figures on scenes.")
    parser.add_argument("model", nargs="?", type=Path, default=BUNDLED, help="a model folder")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = evaluate(given.model, given.scenes, given.seed, given.dtype)
    print(json.dumps(figures) if given.json else report(figures))


if __name__ == "__main__":
    main()
