"""A random pack for a checkpoint, in the files that training writes: for measuring and testing."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.blip.adapter_files import CONFIG_FILE, DOWN, PREFIX, TENSOR_FILE, UP
from worker.blip.adapter_names import BIAS, places, words_name
from worker.blip.config import text_config
from worker.blip.hub import resolve
from worker.blip.pack_card import Base, PackCard
from worker.blip.random_checkpoint import made_up_tokenizer
from worker.blip.weights import Weights


@dataclass(frozen=True, kw_only=True)
class PackShape:
    """How a random caption pack is made.

    targets: a regular expression for the layers that have LoRA, by the checkpoint's names.
    words: tokens of its own vocabulary, None for the checkpoint's. strength: about how much of a
    layer's own output LoRA adds to it.
    """

    targets: str = ".*"
    rank: int = 16
    words: int | None = None
    strength: float = 0.3


def write_random_pack(
    folder: Path,
    base: Path,
    name: str,
    shape: PackShape,
    seed: int = 0,
    language: str | None = None,
) -> Path:
    """Write a caption pack for the checkpoint in `base`."""
    generator = torch.Generator().manual_seed(seed)
    cpu = torch.device("cpu")
    weights = Weights(base)
    state = weights.load(["text_decoder."], torch.float32, cpu)
    config = text_config(json.loads((base / "config.json").read_text(encoding="utf-8")))

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    tensors = {}
    for layer in places("caption", config):
        if re.fullmatch(shape.targets, layer):
            size_out, size_in = state[f"{layer}.weight"].shape
            spread = shape.strength * float(state[f"{layer}.weight"].std())
            tensors[layer + DOWN] = normal(shape.rank, size_in)
            tensors[layer + UP] = spread * shape.rank**-0.5 * normal(size_out, shape.rank)
    folder.mkdir(parents=True)
    if shape.words is not None:
        old = state[words_name("caption")]
        tensors[words_name("caption")] = float(old.std()) * normal(shape.words, old.shape[1])
        tensors[BIAS] = torch.zeros(shape.words)
        made_up_tokenizer(shape.words).save_pretrained(folder)
    save_file({PREFIX + n: t for n, t in tensors.items()}, folder / TENSOR_FILE)
    settings = {"peft_type": "LORA", "r": shape.rank, "lora_alpha": shape.rank}
    (folder / CONFIG_FILE).write_text(json.dumps(settings), encoding="utf-8")
    source = resolve(base)
    revision = source.revision or weights.digest()
    of = Base(source.model_id, revision, weights.digest_of(""))
    PackCard(name=name, task="caption", base=of, language=language).write(folder)
    return folder
