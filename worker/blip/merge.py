"""A pack merged into its base: a full checkpoint in the published layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.blip.adapter_names import BIAS, TIED, words_name
from worker.blip.checkpoint import CLASSES, PARTS, Checkpoint
from worker.blip.errors import PackError
from worker.blip.hub import resolve
from worker.blip.pack_card import read_card
from worker.blip.pack_files import TOKENIZER_FILES, PackContent, PackFiles
from worker.blip.weights import SAFETENSORS


def merge_pack(pack: Path, out: Path, model: str | Path) -> Path:
    """Write the checkpoint that `model` is with the pack, into the empty folder `out`; float32.

    It has the parts of the pack's task alone: those of another task have other words. transformers
    loads it (BlipForConditionalGeneration or BlipForImageTextRetrieval), and so does Engine.

    Raises:
        PackError: `pack` is no pack, or not one of `model`; `out` is not empty.
        CheckpointError: `model` cannot be used.
    """
    if out.exists() and any(out.iterdir()):
        raise PackError(f"{out} is not empty")
    task = read_card(pack).task
    checkpoint = Checkpoint(resolve(model), [task])
    cpu = torch.device("cpu")
    state = checkpoint.weights.load([f"{part}." for part in PARTS[task]], torch.float32, cpu)
    projection_size = len(state["text_proj.weight"]) if task == "match" else 0
    content = PackFiles(checkpoint).read(pack, projection_size)
    _merge(state, content)
    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / SAFETENSORS, metadata={"format": "pt"})
    config = _config(json.loads((checkpoint.folder / "config.json").read_text("utf-8")), content)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _copy_files(pack, checkpoint.folder, out)
    return out


def _merge(state: dict[str, Tensor], content: PackContent) -> None:
    """Put the pack into the checkpoint's tensors."""
    adapter, task = content.adapter, content.card.task
    for name, factors in adapter.factors.items():
        state[f"{name}.weight"] += factors.scale * (factors.up @ factors.down)
    for own, copy in zip((words_name(task), BIAS), TIED, strict=True):
        tied = copy in state and torch.equal(state[copy], state[own])
        if tied or own in adapter.tensors:
            state.pop(copy, None)
    state.update(adapter.tensors)


def _config(config: dict[str, Any], content: PackContent) -> dict[str, Any]:
    """config.json with the pack's vocabulary and its special ids."""
    tokenizer = content.tokenizer
    ids = {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_id,
        "sep_token_id": tokenizer.sep_id,
        "pad_token_id": tokenizer.pad_id,
    }
    architectures = [CLASSES[content.card.task]]
    text = {**config["text_config"], **ids}
    return {**config, "architectures": architectures, "text_config": text, "dtype": "float32"}


def _copy_files(pack: Path, base: Path, out: Path) -> None:
    """The pack's tokenizer, or the base's, and what else describes a checkpoint."""
    own = [name for name in TOKENIZER_FILES if (pack / name).is_file()]
    for name in own or TOKENIZER_FILES:
        if (file := (pack if own else base) / name).is_file():
            shutil.copyfile(file, out / name)
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    if (pack / "README.md").is_file():
        shutil.copyfile(pack / "README.md", out / "README.md")
