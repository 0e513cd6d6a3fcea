"""What a language pack is worth, on unseen scenes or on a manifest, and beside its card."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from worker.blip import Engine
from worker.blip.pack import Pack
from worker.blip.pack_card import PackCard, read_card
from worker.training.evaluate import SEED, usual
from worker.training.finetune.card import readme
from worker.training.finetune.embedded import readings
from worker.training.finetune.pictures import Picture, Unreadable
from worker.training.finetune.rows import Columns, Complaints, of_language, read_manifest
from worker.training.languages import caption
from worker.training.quality import quality
from worker.training.scenes import HELD_OUT, SEEN, Scene, draw, sample
from worker.training.scores import batched

SCENES = 1_000
MAX_TOKENS = 48
SCALES = {"bleu_4": 100.0, "cider_d": 10.0}
"""The best that a figure can be; 1 for shares."""
COUNT = "images"
"""Says how many captions were judged, and is no score."""
DIGITS = 4
"""After the point, in cards."""
PACKS = Path(__file__).parents[2] / "checkpoints" / "packs"
_BATCH = 50


def evaluate_scenes(
    engine: Engine, pack: Pack | None, language: str, scenes: int = SCENES, seed: str = SEED
) -> dict[str, float]:
    """The figures on `scenes` scenes, six in ten with two shapes, and half as many more with
    combinations of size, colour and kind that training never shows; captions are greedy.

    Names begin with `scenes_`: such figures say nothing of other images.
    """
    rng = random.Random(seed)
    drawn = usual(rng, scenes)
    held_out = [sample(rng, 1 + (i % 5 < 3), SEEN, HELD_OUT) for i in range(scenes // 2)]
    said = _scenes_said(engine, pack, drawn)
    right = [caption(scene, language) for scene in drawn]
    hits = [one == true for one, true in zip(said, right, strict=True)]
    two = [scene.relation is not None for scene in drawn]
    new = zip(_scenes_said(engine, pack, held_out), held_out, strict=True)
    overall = quality(said, [[true] for true in right], language)
    return {
        "scenes_exact": overall.exact,
        "scenes_exact_one_shape": _share(h for h, t in zip(hits, two, strict=True) if not t),
        "scenes_exact_two_shapes": _share(h for h, t in zip(hits, two, strict=True) if t),
        "scenes_exact_held_out": _share(one == caption(scene, language) for one, scene in new),
        "scenes_bleu_4": overall.bleu_4,
        "scenes_cider_d": overall.cider_d,
    }


def evaluate_manifest(
    engine: Engine,
    pack: Pack | None,
    language: str,
    manifest: Path,
    complaints: Complaints,
    beams: int = 3,
) -> dict[str, float]:
    """The figures on the images of a manifest; an image's captions, a row each or a list, are its
    references.

    Raises:
        ValueError: it is no manifest, or has too few images of the language.
        NotInstalled: without what reads it, or judges captions.
    """
    found = of_language(read_manifest(manifest, Columns(), complaints), language)
    references: dict[Picture, list[str]] = {}
    for row in found.rows:
        if row.match:
            references.setdefault(row.picture, []).append(row.caption)
    said: dict[Picture, str] = {}
    for part in batched(readings(references, engine.framing()), _BATCH):
        for picture, pixels in part:
            if isinstance(pixels, Unreadable):
                complaints.add(picture.name, str(pixels))
        good = {p: pixels for p, pixels in part if not isinstance(pixels, Unreadable)}
        said |= zip(good, _said(engine, pack, list(good.values()), beams), strict=True)
    judged = quality(list(said.values()), [references[one] for one in said], language)
    return {**asdict(judged), COUNT: float(len(said))}


def falls(found: Mapping[str, float], card: Mapping[str, float], margin: float) -> dict[str, float]:
    """What the card says of those figures that are lower by more than `margin` of their scale."""
    return {
        name: stated
        for name, stated in card.items()
        if name in found
        and round(found[name], DIGITS) < stated - margin * SCALES.get(_plain(name), 1.0)
    }


def save(folder: Path, figures: Mapping[str, float]) -> PackCard:
    """Write the figures into a pack's cards, in place of those of the same names."""
    card = read_card(folder)
    rounded = {name: round(value, DIGITS) for name, value in figures.items() if name != COUNT}
    scored = replace(card, scores={**card.scores, **rounded})
    scored.write(folder)
    (folder / "README.md").write_text(readme(scored), encoding="utf-8")
    return scored


def report(figures: Mapping[str, float], card: Mapping[str, float], margin: float) -> str:
    """The figures, one a line, beside the card's."""
    low = falls(figures, card, margin)
    lines = []
    for name, value in figures.items():
        stated = f"   (card {card[name]:.4f}{', too low' * (name in low)})" if name in card else ""
        lines.append(f"{name:<26} {value:9.4f}{stated}")
    return "\n".join(lines)


def _plain(name: str) -> str:
    return name.removeprefix("scenes_")


def _share(hits: Iterable[bool]) -> float:
    every = list(hits)
    return sum(every) / max(1, len(every))


def _scenes_said(engine: Engine, pack: Pack | None, scenes: Sequence[Scene]) -> list[str]:
    parts = batched(scenes, _BATCH)
    return [text for part in parts for text in _said(engine, pack, [draw(s) for s in part], 1)]


def _said(engine: Engine, pack: Pack | None, images: Sequence[Any], beams: int) -> list[str]:
    if not images:
        return []
    rows = engine.caption(
        images, packs=pack, num_beams=beams, min_new_tokens=0, max_new_tokens=MAX_TOKENS
    )
    return [captions[0].text for captions in rows]
