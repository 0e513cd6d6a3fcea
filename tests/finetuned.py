"""Pairs on disk for fine-tuning, and what a run needs, small."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.blip_checkpoints import noise_images
from worker.blip.pack_card import PackCard
from worker.training.finetune.request import Request
from worker.training.finetune.run import finetune as run
from worker.training.finetune.settings import Settings

WORDS = ["word1", "word2", "word3", "word4", "word5", "word6", "word7", "word8"]


def captions(count: int) -> list[str]:
    """Different ones, of words that the random checkpoints' tokenizer knows, 2 to 5 of them."""
    return [
        " ".join(WORDS[(i // 8**place) % 8] for place in range(2 + i % 4)) for i in range(count)
    ]


def write_pairs(folder: Path, texts: Sequence[str], **columns: Sequence[Any]) -> Path:
    """A manifest of images that even a random ViT tells apart; `columns` beside the caption."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (image, text) in enumerate(zip(noise_images(len(texts)), texts, strict=True)):
        image.save(folder / f"{number}.png")
        row = {"image": f"{number}.png", "caption": text}
        lines.append(json.dumps(row | {name: each[number] for name, each in columns.items()}))
    manifest = folder / "pairs.jsonl"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def request(data: Path, output: Path, model: Path, **given: Any) -> Request:
    """A run of few steps; names of settings and of the request's own fields."""
    own = {name: given.pop(name) for name in list(given) if name in Request.__dataclass_fields__}
    own.setdefault("name", output.name)
    few = {"steps": 12, "batch": 4, "rate": 1e-2, "rank": 4, "alpha": 8.0}
    return Request(
        data=data,
        output=output,
        model=str(model),
        settings=Settings(**few | given),
        cpu=True,
        **own,
    )


def finetune(asked: Request, interrupted: Callable[[], bool] = lambda: False) -> PackCard:
    """A run in the only process that there is."""
    card = run(asked, interrupted)
    assert card is not None
    return card


def losses(output: Path) -> list[dict[str, float]]:
    """What a run logged."""
    log = output.with_name(output.name + ".training") / "losses.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]
