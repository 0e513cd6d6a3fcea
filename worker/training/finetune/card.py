"""The card for people of what was fine-tuned, from the card for programs."""

import json
from collections.abc import Mapping
from typing import Any

from worker.blip.pack_card import PackCard

CARD = """---
{header}
---

# {name}

{what}

## Data

{data}

## Training

{training}

## Scores

{scores}

## Limits

{limits}
"""

LIMITS = {
    "caption": "It says what its data says, in its words: nothing else was learned. The image "
    "encoder is the base's, so what that does not see, no caption names.",
    "match": "Its probabilities rank pairs like those of its data. They are not calibrated: a "
    "calibration of the base does not hold for it. The image encoder is the base's.",
}


def readme(card: PackCard) -> str:
    """The card as Markdown."""
    header: dict[str, Any] = {
        "library_name": "captionq",
        "base_model": card.base.model_id,
        "tags": json.dumps(["blip", "lora" if "rank" in card.training else "fine-tuned"]),
    }
    if card.language:
        header["language"] = card.language
    whole = "rank" not in card.training
    kind = "A checkpoint, fine-tuned whole" if whole else "A pack (LoRA, Hu et al. 2021)"
    language = f" in the language `{card.language}`" if card.language else ""
    return CARD.format(
        header="\n".join(f"{name}: {value}" for name, value in header.items()),
        name=card.name,
        what=f"{kind} for the task `{card.task}`{language}, of the BLIP checkpoint "
        f"`{card.base.model_id}` at revision `{card.base.revision}`, made by "
        f"`captionq-worker finetune`.",
        data=_listed(card.data),
        training=_listed(card.training),
        scores=_listed(card.scores) or "None yet: captionq-worker evaluate takes them.",
        limits=LIMITS[card.task],
    )


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {_said(value)}" for name, value in values.items())


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
