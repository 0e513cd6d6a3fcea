"""What a run is asked for, with where everything is, and what tells it from another run."""

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from worker.blip.pack_card import Base
from worker.training.finetune.data import Data
from worker.training.finetune.output import TOKENIZER_FILES
from worker.training.finetune.rows import Columns
from worker.training.finetune.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run. validation: a manifest, a dataset's folder, or a share of the data. save_every_s:
    between states to go on from. cpu: use no GPU."""

    data: Path
    output: Path
    model: str
    name: str
    settings: Settings
    language: str | None = None
    validation: Path | float | None = None
    columns: Columns = field(default_factory=Columns)
    strict: bool = False
    save_every_s: float = 60.0
    cpu: bool = False

    def identity(self, base: Base, data: Data) -> dict[str, Any]:
        """Everything that decides what is trained, as JSON: by name, so that people are told."""
        settings = asdict(replace(self.settings, tokenizer=None))
        return {
            "base": base.digest,
            "tokenizer": _digest(self.settings.tokenizer),
            "language": data.language,
            "name": self.name,
            "data": data.digest(),
            "validation": data.validation_digest(),
            **{f"--{name.replace('_', '-')}": value for name, value in settings.items()},
        }


def _digest(tokenizer: Path | None) -> str | None:
    if tokenizer is None:
        return None
    found = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            found.update(name.encode() + (tokenizer / name).read_bytes())
    return found.hexdigest()
