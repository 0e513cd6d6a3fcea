"""Writes a trained model as a folder that transformers and captionq load like any BLIP."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from worker.training.card import model_card
from worker.training.dataset import MEAN, SIDE, STD
from worker.training.evaluate import evaluate
from worker.training.joint import Joint, configuration
from worker.training.vocabulary import save

MAX_BYTES = 8_000_000
PREPROCESSOR = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "BlipImageProcessor",
    "image_std": STD,
    "processor_class": "BlipProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": SIDE, "width": SIDE},
}


def export(model: Joint, directory: Path, log: str, settings: dict[str, int]) -> None:
    """Writes weights, configuration, tokenizer, preprocessor and model card into `directory`.

    One safetensors file holds the keys of BlipForConditionalGeneration and those of
    BlipForImageTextRetrieval; `vision_model.*` serves both. Tied keys are left out, as
    transformers leaves them out. The card's figures are those of the written file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / "model.safetensors"
    save_file(tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    if weights.stat().st_size >= MAX_BYTES:
        raise ValueError(f"{weights} has {weights.stat().st_size} bytes, {MAX_BYTES} are too many")
    config = configuration()
    config.dtype = torch.float32
    config.save_pretrained(directory)
    save(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    card = model_card(evaluate(directory), log, settings)
    (directory / "README.md").write_text(card)


def tensors(model: Joint) -> dict[str, torch.Tensor]:
    """The published tensors by name; each a copy of its own, float32."""
    tied = set(model.captioner.all_tied_weights_keys)
    both = {**model.matcher.state_dict(), **model.captioner.state_dict()}
    return {
        name: value.detach().clone().contiguous()
        for name, value in both.items()
        if name not in tied
    }
