"""What a fine-tuning run is asked for, checked before anything is read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Task = Literal["caption", "match"]

_LAYER = r"encoder\.layer\.\d+\."
_LINEARS = (
    r"((attention|crossattention)\.(self\.(query|key|value)|output\.dense)"
    r"|intermediate\.dense|output\.dense)"
)
TARGETS: dict[Task, str] = {
    "caption": rf"text_decoder\.bert\.{_LAYER}{_LINEARS}",
    "match": rf"text_encoder\.{_LAYER}{_LINEARS}",
}
"""The modules that LoRA adapts unless --targets says otherwise: attention, cross-attention, MLP."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A run. Raises ValueError for what cannot be.

    steps: of the optimizer; None where `epochs` says how often each row comes. batch: rows of one
    pass, over all processes; `accumulate` passes make a step. rate: at its highest. warmup: share
    of the steps. validate_every: steps; None for ten times in a run. patience: validations without
    a better loss, then it ends; 0 for never. save_every: seconds between checkpoints.
    """

    task: Task = "caption"
    tokenizer: Path | None = None
    full: bool = False
    targets: str | None = None
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    steps: int | None = None
    epochs: float = 10.0
    batch: int = 32
    accumulate: int = 1
    rate: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    validate_every: int | None = None
    patience: int = 0
    max_tokens: int = 40
    bf16: bool = False
    gradient_checkpointing: bool = False
    cache_gib: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "batch", "accumulate", "max_tokens", "steps", "validate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{_flag(name)} is 1 or more, not {value}")
        for name in ("alpha", "rate", "clip", "epochs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{_flag(name)} is above 0, not {getattr(self, name)}")
        for name in ("weight_decay", "patience", "cache_gib", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{_flag(name)} is 0 or more, not {getattr(self, name)}")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{_flag(name)} is at least 0 and below 1")
        if self.max_tokens < 3:
            raise ValueError("--max-tokens counts [DEC] and [SEP]: it is 3 or more")
        if self.tokenizer is not None and self.task != "caption":
            raise ValueError("--tokenizer is for captions: matching reads the checkpoint's words")
        if self.full and self.targets:
            raise ValueError("--targets names what LoRA adapts; --full trains everything")
        try:
            re.compile(self.pattern)
        except re.error as exc:
            raise ValueError(f"--targets is no regular expression: {exc}") from exc

    @property
    def pattern(self) -> str:
        """The regular expression that names of adapted modules match, from end to end."""
        return self.targets or TARGETS[self.task]

    def steps_of(self, rows: int) -> int:
        """How many steps there are with so many rows to train on."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * rows / (self.batch * self.accumulate)))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
