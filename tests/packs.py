"""Small packs of the bundled checkpoint, whose captions tell who said them: "a" is another word."""

import json
import shutil
from functools import cache
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from worker.blip.pack_card import Base, PackCard
from worker.blip.weights import Weights
from worker.settings import BUNDLED, model_path

BASE = Path(model_path(BUNDLED))
WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"
BIAS = "text_decoder.cls.predictions.bias"
HEADS = ("text_proj.weight", "text_proj.bias")


@cache
def base_card() -> Base:
    weights = Weights(BASE)
    return Base(BASE.name, weights.digest(), weights.digest_of(""))


@cache
def tensors_of_base(*names: str) -> dict[str, Tensor]:
    with safe_open(BASE / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name).contiguous() for name in names}


def write_caption_pack(
    folder: Path,
    name: str,
    language: str | None = None,
    article: str = "",
    base: Base | None = None,
) -> Path:
    """A pack that says what the checkpoint says, with `article` (the name without) for "a"."""
    folder.mkdir(parents=True)
    own = {f"base_model.model.{n}": t for n, t in tensors_of_base(WORDS, BIAS).items()}
    _write(folder, own)
    tokenizer = json.loads((BASE / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    # The letter is spelled by its continuation from now on: words that are unknown need it.
    vocabulary[article or name.replace("-", "")] = vocabulary.pop("a")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    shutil.copyfile(BASE / "tokenizer_config.json", folder / "tokenizer_config.json")
    PackCard(name=name, task="caption", base=base or base_card(), language=language).write(folder)
    return folder


def write_match_pack(folder: Path, name: str, language: str | None = None) -> Path:
    """A pack whose texts lie the other way round: its cosines are the checkpoint's, negated."""
    folder.mkdir(parents=True)
    _write(folder, {f"base_model.model.{n}": -t for n, t in tensors_of_base(*HEADS).items()})
    PackCard(name=name, task="match", base=base_card(), language=language).write(folder)
    return folder


def _write(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "lora_alpha": 8, "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
