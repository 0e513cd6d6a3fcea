"""What a pack says of itself: pack.json, beside PEFT's adapter files and the pack's own tokenizer.

A pack adapts one base checkpoint to a language or a domain: LoRA (Hu et al. 2021) in PEFT's files
(adapter_config.json, adapter_model.safetensors), tensors that take the place of the base's, and,
where it has words of its own, a tokenizer and the word embeddings that go with it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from worker.blip.errors import PackError

PACK_FILE = "pack.json"
MAX_JSON_BYTES = 1_000_000
FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class Base:
    """The checkpoint that a pack was trained on.

    revision: as the engine calls it (Engine.revision). digest: SHA-256 over its tensors
    (Weights.digest_of("")), equal for equal weights wherever they come from.
    """

    model_id: str
    revision: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class PackCard:
    """Who a pack is.

    name: what a job's `adapter` says. language: BCP 47, None where the pack is not of a language.
    scores: figures that `captionq-worker evaluate` holds the pack to. data, training: what it was
    trained on, and how; for readers.
    """

    name: str
    task: Literal["caption", "match"]
    base: Base
    language: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PackError(f"a pack's name has a-z, 0-9, '.', '_' and '-': {self.name!r}")
        if self.task not in ("caption", "match"):
            raise PackError(f"{self.name}: task is caption or match, not {self.task!r}")
        if self.language is not None and not is_language(self.language):
            raise PackError(f"{self.name}: language is a BCP 47 tag, not {self.language!r}")
        if not all(isinstance(value, str) for value in vars(self.base).values()):
            raise PackError(f"{self.name}: base's model_id, revision and digest are texts")
        if not isinstance(self.scores, Mapping) or not all(map(_is_score, self.scores.values())):
            raise PackError(f"{self.name}: scores are numbers by name, not {self.scores!r}"[:200])

    def write(self, folder: Path) -> None:
        """Write pack.json."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)
        (folder / PACK_FILE).write_text(text + "\n", encoding="utf-8")


def is_language(tag: str) -> bool:
    """Whether a tag is of the form that BCP 47 (RFC 5646) gives languages: de, pt-BR, zh-Hant."""
    return _LANGUAGE.fullmatch(tag) is not None


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and -1e9 < value < 1e9


def read_card(folder: Path) -> PackCard:
    """A pack's card.

    Raises:
        PackError: there is none, or it is not one that we can read.
    """
    read = read_json(folder / PACK_FILE)
    if read.pop("format", None) != FORMAT:
        raise PackError(f"{folder.name}: {PACK_FILE} is not of format {FORMAT}")
    try:
        return PackCard(**{**read, "base": Base(**read["base"])})
    except (TypeError, KeyError) as exc:
        raise PackError(f"{folder.name}: {PACK_FILE} lacks a field, or has an unknown one") from exc


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object. Raises PackError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise PackError(
                f"{path.parent.name}: {path.name} is larger than {MAX_JSON_BYTES} bytes"
            )
        read = json.loads(data)
    except FileNotFoundError:
        raise PackError(f"{path.parent.name} is no pack: it has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as exc:
        raise PackError(f"{path.parent.name}: {path.name} cannot be read as JSON") from exc
    if not isinstance(read, dict):
        raise PackError(f"{path.parent.name}: {path.name} is no JSON object")
    return read
