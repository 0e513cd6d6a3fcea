"""How far explanations can be trusted, method by method, on scenes whose boxes are known.

python -m worker.training.attention [MODEL] [--scenes N] [--seed TEXT] [--json]
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.blip import Engine, Explanation
from worker.blip.explanation import DEFAULT_METHOD, METHODS, POSITIONS, Method, Position
from worker.training.evaluate import BATCH, BUNDLED
from worker.training.faithfulness import Curves, curves, order_of, sign_test
from worker.training.pointing import Pointing, pointing
from worker.training.scenes import Scene, draw, sample

SEED = "attention"
FAITHFUL = 5
"""Deletion and insertion, and all of occlusion, are measured on a 5th of the scenes, the first."""
VARIED: tuple[Method, ...] = ("attention", "gradcam")
"""Methods whose layers and positions are tried one by one."""
BARS = {"one_shape": 0.9, "two_shapes": 0.8, "swapped": 0.25, "deletion_p": 0.01}

Explain = Callable[..., list[list[Explanation]]]  # Engine.explain, Engine.explain_match


@dataclass(frozen=True)
class Figure:
    """One method, on captions or on matches.

    entropy: of a word's map, in nats, mean. deletion, insertion: areas, mean; deletion_p,
    insertion_p: that they are not smaller, or larger, than in random order but by chance. The last
    four are of captions alone.
    """

    task: str
    method: Method
    scenes: int
    one_shape: Pointing
    two_shapes: Pointing
    entropy: float
    deletion: float | None = None
    insertion: float | None = None
    deletion_p: float | None = None
    insertion_p: float | None = None


@dataclass(frozen=True)
class Variant:
    """A method with its layers and its position chosen otherwise; shares of words that point right.

    layers: one of the text stack's, or None for the mean of all.
    """

    method: Method
    layers: int | None
    position: Position
    one_shape: float
    two_shapes: float


@dataclass(frozen=True)
class Trust:
    """All figures; `random_deletion` and `random_insertion` are the areas in random order.

    few: scenes that deletion, insertion, occlusion and variants were measured on
    agreement: Spearman's rank correlation of the maps that two methods made of the same words of
    captions, mean, by "one, other".
    """

    default: Method
    few: int
    figures: list[Figure]
    variants: list[Variant]
    random_deletion: float
    random_insertion: float
    agreement: dict[str, float]


def evaluate_attention(
    directory: Path | str,
    scenes: int = 1000,
    seed: str = SEED,
    methods: Sequence[Method] = METHODS,
    dtype: str = "float32",
) -> Trust:
    """The figures of a model folder with both tasks, run by the engine on the CPU.

    Half of the scenes have one shape, half two; none was in training. What is explained is each
    scene's caption, word for word what the model says of all but a few.
    """
    if scenes < 2:
        raise ValueError("scenes have one shape and two in turn: there have to be 2 at least")
    engine = Engine.load(directory, dtype=dtype)
    rng = random.Random(seed)
    drawn = [sample(rng, 1 + number % 2) for number in range(scenes)]
    few = drawn[: max(2, scenes // FAITHFUL)]
    texts = [scene.caption for scene in few]
    pixels = engine.normalised([draw(scene, engine.image_size[0]) for scene in few])
    grid = engine.encode(pixels[:1]).grid(0)

    def areas(orders: Sequence[NDArray[np.int64]]) -> Curves:
        return curves(engine, pixels, grid, texts, orders)

    patches = range(grid[0] * grid[1])
    by_chance = areas([np.array(rng.sample(patches, len(patches))) for _ in few])
    figures, maps = [], {}
    for method in methods:
        some = few if method == "occlusion" else drawn
        explained = _explained(engine.explain, some, method)
        own = areas([order_of(one) for one in explained[: len(few)]])
        figures.append(
            replace(
                _pointed("caption", method, some, explained),
                deletion=float(own.deletion.mean()),
                insertion=float(own.insertion.mean()),
                deletion_p=sign_test(own.deletion, by_chance.deletion),
                insertion_p=sign_test(own.insertion, by_chance.insertion),
            )
        )
        maps[method] = explained[: len(few)]
    for method in methods if "match" in engine.tasks else ():
        some = few if method == "occlusion" else drawn
        matched = _explained(engine.explain_match, some, method)
        figures.append(_pointed("match", method, some, matched))
    return Trust(
        default=DEFAULT_METHOD,
        few=len(few),
        figures=figures,
        variants=_variants(engine, few, [m for m in methods if m in VARIED]),
        random_deletion=float(by_chance.deletion.mean()),
        random_insertion=float(by_chance.insertion.mean()),
        agreement={
            f"{one}, {other}": agreement(maps[one], maps[other])
            for one, other in combinations(methods, 2)
        },
    )


def _variants(engine: Engine, scenes: Sequence[Scene], methods: Sequence[Method]) -> list[Variant]:
    """Captions by each layer alone and by all, at each position."""
    layers = [None, *range(engine.text_layers)]
    found = []
    for method, position, layer in product(methods, POSITIONS, layers):
        chosen = range(engine.text_layers) if layer is None else layer
        explain = partial(engine.explain, layers=chosen, position=position)
        one, two = _by_shapes(scenes, _explained(explain, scenes, method))
        found.append(Variant(method, layer, position, one.accuracy, two.accuracy))
    return found


def agreement(one: Sequence[Explanation], other: Sequence[Explanation]) -> float:
    """Spearman's rank correlation of two methods' maps of the same words, mean over words.

    A map that is even has no ranks to compare: its word is left out.
    """
    found = [
        spearman(first.ravel(), second.ravel())
        for a, b in zip(one, other, strict=True)
        for first, second in zip(a.maps, b.maps, strict=True)
        if np.ptp(first) > 0 and np.ptp(second) > 0
    ]
    return float(np.mean(found))


def spearman(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Rank correlation of two flat arrays that are not constant; ties share their mean rank."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[which]
    return ranks


def _explained(explain: Explain, scenes: Sequence[Scene], method: Method) -> list[Explanation]:
    """Each scene's caption, explained by one method in its default way."""
    found: list[Explanation] = []
    for start in range(0, len(scenes), BATCH):
        part = scenes[start : start + BATCH]
        rows = explain(
            [draw(scene) for scene in part], [[scene.caption] for scene in part], method=method
        )
        found += [row[0] for row in rows]
    return found


def _pointed(
    task: str, method: Method, scenes: Sequence[Scene], explained: Sequence[Explanation]
) -> Figure:
    shares = np.concatenate([one.maps.reshape(len(one.maps), -1) for one in explained])
    logs = np.log(np.where(shares > 0, shares, 1))
    one, two = _by_shapes(scenes, explained)
    return Figure(
        task=task,
        method=method,
        scenes=len(scenes),
        one_shape=one,
        two_shapes=two,
        entropy=float(-(shares * logs).sum(axis=1).mean()),
    )


def _by_shapes(
    scenes: Sequence[Scene], explained: Sequence[Explanation]
) -> tuple[Pointing, Pointing]:
    """Of the scenes with one shape, and of those with two."""
    both = list(zip(scenes, explained, strict=True))
    one, two = ([pair for pair in both if len(pair[0].shapes) == shapes] for shapes in (1, 2))
    return pointing(*zip(*one, strict=True)), pointing(*zip(*two, strict=True))


_COLUMNS = (
    "of",
    "method",
    "scenes",
    "one shape",
    "mass",
    "two shapes",
    "mass",
    "boxes swapped",
    "entropy",
    "deletion",
    "insertion",
)


def report(trust: Trust) -> str:
    """The figures as tables in Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for figure in trust.figures:
        one, two = figure.one_shape, figure.two_shapes
        mark = "**" if (figure.task, figure.method) == ("caption", trust.default) else ""
        cells = [
            figure.task,
            f"{mark}{figure.method}{mark}",
            str(figure.scenes),
            f"{one.accuracy:.1%}",
            f"{one.mass_in_box:.0%}",
            f"{two.accuracy:.1%}",
            f"{two.mass_in_box:.0%}",
            f"{two.swapped:.1%}",
            f"{figure.entropy:.2f}",
            _area(figure.deletion, figure.deletion_p),
            _area(figure.insertion, figure.insertion_p),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    one, two = trust.figures[0].one_shape, trust.figures[0].two_shapes
    pairs = "; ".join(f"{pair} {value:.2f}" for pair, value in trust.agreement.items())
    by_chance = (
        f"Random order: deletion {trust.random_deletion:.2f}, insertion "
        f"{trust.random_insertion:.2f} nats a token; p against it by the sign test, "
        f"{trust.few} scenes."
    )
    lines += [
        "",
        f"Chance, from the boxes' areas: {one.chance:.1%} for one shape, {two.chance:.1%} for two.",
        by_chance,
        f"Rank correlation of maps of captions: {pairs}.",
    ]
    lines += ["", "| method | position | layer | one shape | two shapes |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.method} | {one.position} | {'all' if one.layers is None else one.layers} "
        f"| {one.one_shape:.1%} | {one.two_shapes:.1%} |"
        for one in trust.variants
    ]
    failed = [name for name, met in meets(trust).items() if not met]
    lines += [f"NOT MET: {', '.join(failed)}"] if failed else []
    return "\n".join(lines)


def meets(trust: Trust) -> dict[str, bool]:
    """Which of BARS the default method's captions meet, and whether no other points better."""
    captions = [figure for figure in trust.figures if figure.task == "caption"]
    [default] = [figure for figure in captions if figure.method == trust.default]
    best = max(figure.two_shapes.accuracy for figure in captions)
    return {
        "one_shape": default.one_shape.accuracy >= BARS["one_shape"],
        "two_shapes": default.two_shapes.accuracy >= BARS["two_shapes"],
        "swapped": (default.two_shapes.swapped or 0) < BARS["swapped"],
        "deletion_p": (default.deletion or 0) < trust.random_deletion
        and (default.deletion_p or 0) < BARS["deletion_p"],
        "default": default.two_shapes.accuracy >= best,
    }


def _area(area: float | None, p: float | None) -> str:
    return "" if area is None or p is None else f"{area:.2f} (p {p:.0e})"


def main() -> None:
    """Prints the figures of a model folder, as tables or as JSON."""
    parser = argparse.ArgumentParser(description="How far explanations of scenes can be trusted.")
    parser.add_argument("model", nargs="?", type=Path, default=BUNDLED, help="a model folder")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    trust = evaluate_attention(given.model, given.scenes, given.seed)
    print(json.dumps(asdict(trust)) if given.json else report(trust))


if __name__ == "__main__":
    main()
