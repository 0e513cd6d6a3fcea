"""What a run leaves: a pack's folder, or a full checkpoint's, there at once and whole."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.blip.checkpoint import PARTS, Checkpoint
from worker.blip.pack_card import PackCard
from worker.blip.weights import SAFETENSORS
from worker.training.finetune.card import readme
from worker.training.finetune.folder import synced
from worker.training.finetune.model import Trained

ADAPTER = "adapter_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def write_output(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` with what `fill` writes into one beside it: it appears when all is written, on
    the disk too."""
    part = folder.with_name(folder.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    fill(part)
    for path in part.iterdir():
        path.chmod(0o644)
        synced(path)
    part.rename(folder)
    synced(folder.absolute().parent)


def write_pack(folder: Path, trained: Trained, card: PackCard, tokenizer: Path | None) -> None:
    """PEFT's adapter files, the tokenizer where it is the pack's own, and the cards."""
    config = trained.peft_config()
    config.base_model_name_or_path = card.base.model_id
    config.revision = card.base.revision
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(_plain(trained.tensors()), folder / ADAPTER, metadata={"format": "pt"})
    if tokenizer is not None:
        copy(tokenizer, folder, TOKENIZER_FILES)
    card.write(folder)
    (folder / "README.md").write_text(readme(card), encoding="utf-8")


def write_checkpoint(
    folder: Path, base: Checkpoint, trained: Trained, card: PackCard, tokenizer: Path | None
) -> None:
    """A checkpoint in the published layout: the base's tensors, those that were trained in their
    place. With another tokenizer it has no matching, which reads the base's words."""
    cpu = torch.device("cpu")
    kept = [""] if tokenizer is None else [f"{part}." for part in PARTS["caption"]]
    state = base.weights.load(kept, torch.float32, cpu) | trained.tensors()
    tied = (".cls.predictions.decoder.", "position_ids")
    save_file(
        _plain({name: t for name, t in state.items() if not any(part in name for part in tied)}),
        folder / SAFETENSORS,
        metadata={"format": "pt"},
    )
    config: dict[str, Any] = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    if tokenizer is not None:
        own = trained.tokenizer
        config["text_config"] |= {
            "vocab_size": own.vocab_size,
            "pad_token_id": own.pad_id,
            "bos_token_id": own.bos_id,
            "sep_token_id": own.sep_id,
        }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    copy(base.folder, folder, PREPROCESSOR_FILES)
    copy(tokenizer or base.folder, folder, TOKENIZER_FILES)
    (folder / "README.md").write_text(readme(card), encoding="utf-8")


def copy(source: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Copy those of these files that there are."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
