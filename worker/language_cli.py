"""`captionq-worker evaluate --language`: captions in a language, and the pack's card held to."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from worker.settings import BUNDLED, model_path


@dataclass(frozen=True)
class Asked:
    """Of which language and pack, on scenes or on a manifest, and what to do with the figures."""

    language: str
    pack: Path | None
    data: Path | None
    scenes: int
    margin: float
    save: bool


def evaluate(model: str, asked: Asked, dtype: str, as_json: bool) -> int:
    """Print the figures; the exit status: 1 where one is too far below the pack's card."""
    from worker.blip import Engine
    from worker.blip.pack_card import read_card
    from worker.packs.choice import lookup
    from worker.training.finetune.rows import Complaints
    from worker.training.languages import evaluate as languages

    if asked.data is not None and asked.data.is_dir():
        raise ValueError(f"{asked.data} is a folder: --data is a manifest, such as a .jsonl file")
    folder = asked.pack
    if folder is None and model == BUNDLED:
        tag = lookup(asked.language, [path.name for path in languages.PACKS.iterdir()])
        folder = languages.PACKS / tag if tag else None
    if asked.save and folder is None:
        raise ValueError("--save writes into the card of a pack, and none is evaluated")
    engine = Engine.load(model_path(model), dtype=dtype, tasks=["caption"])
    pack = engine.load_pack(folder) if folder else None
    if asked.data is None:
        found = languages.evaluate_scenes(engine, pack, asked.language, asked.scenes)
    else:
        found = languages.evaluate_manifest(
            engine, pack, asked.language, asked.data, Complaints(_say)
        )
    card = read_card(folder).scores if folder and not asked.save else {}
    print(json.dumps(found) if as_json else languages.report(found, card, asked.margin))
    if asked.save and folder:
        languages.save(folder, found)
        _say(f"written into {folder / 'pack.json'}")
    if folder and not asked.save and not found.keys() & card.keys():
        _say("the card has none of these figures to hold them against: --save writes them")
    low = languages.falls(found, card, asked.margin)
    if low:
        _say(f"below the card by more than {asked.margin:g} of the scale: {', '.join(low)}")
    return int(bool(low))


def _say(sentence: str) -> None:
    print(f"captionq-worker: {sentence}", file=sys.stderr)
