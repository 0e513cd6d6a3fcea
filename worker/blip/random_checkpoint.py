"""A randomly initialised BLIP on disk, in the published file layout: for measuring and testing.

Its captions mean nothing; its shapes, its files and the way it loads are the real ones.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from worker.blip.weights import SAFETENSORS

_CLASSES: dict[str, Any] = {
    "caption": BlipForConditionalGeneration,
    "match": BlipForImageTextRetrieval,
}
_SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}


@dataclass(frozen=True)
class Shape:
    """Sizes of a BLIP; the defaults are blip-image-captioning-base as published."""

    image_size: int = 384
    patch_size: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocab_size: int = 30524


BASE = Shape()
LARGE = Shape(vision_width=1024, vision_layers=24, vision_heads=16)


def write_random_checkpoint(
    folder: Path,
    shape: Shape = BASE,
    tasks: Sequence[str] = ("caption",),
    seed: int = 0,
    spread: float = 1.0,
    end_bias: float = 0.0,
) -> Path:
    """Write config.json, model.safetensors, tokenizer and preprocessor files into `folder`.

    tasks: "caption", "match" or both over one ViT. Random weights as they are give flat logits and
    captions that hardly depend on the image: `spread` multiplies the word embeddings, so the
    logits, and the cross-attention's output; `end_bias` makes [SEP] likelier.
    """
    torch.manual_seed(seed)
    config = _config(shape)
    state: dict[str, Tensor] = {}
    for task in tasks:
        model = _CLASSES[task](config)
        # The head is tied, so absent; the second model's ViT gives way to the first one's.
        state |= {name: t for name, t in model.state_dict().items() if _stored(name, state)}
    for name, tensor in state.items():
        if name.endswith(("word_embeddings.weight", "crossattention.output.dense.weight")):
            tensor.mul_(spread)
        elif name == "text_decoder.cls.predictions.bias":
            tensor[_SPECIAL["[SEP]"]] += end_bias
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [_CLASSES[tasks[0]].__name__]
    config.save_pretrained(folder)
    save_file(state, folder / SAFETENSORS, metadata={"format": "pt"})
    _tokenizer(shape.vocab_size).save_pretrained(folder)
    _write_preprocessor(folder, shape.image_size)
    return folder


def _stored(name: str, state: dict[str, Tensor]) -> bool:
    return "cls.predictions.decoder." not in name and name not in state


def _config(shape: Shape) -> Any:
    return BlipConfig(
        text_config={
            "hidden_size": shape.text_width,
            "intermediate_size": 4 * shape.text_width,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "vocab_size": shape.vocab_size,
            "bos_token_id": shape.vocab_size - 2,
            "sep_token_id": _SPECIAL["[SEP]"],
            "pad_token_id": _SPECIAL["[PAD]"],
            "initializer_range": _deviation(shape.text_width),
        },
        vision_config={
            "hidden_size": shape.vision_width,
            "intermediate_size": 4 * shape.vision_width,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": shape.vision_heads,
            "image_size": shape.image_size,
            "patch_size": shape.patch_size,
            "initializer_range": _deviation(shape.vision_width),
        },
        initializer_range=_deviation(shape.vision_width),
    )


def _deviation(width: int) -> float:
    """Standard deviation of random weights: 0.02 at the published width, as lively at others.

    BlipVisionConfig's own default, 1e-10, leaves the ViT dead.
    """
    return float(0.02 * (BASE.vision_width / width) ** 0.5)


def _tokenizer(vocab_size: int) -> Any:
    """A BertTokenizer over made-up words: the published special ids, [DEC] and [ENC] last."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"##{letter}" for letter in letters), ".", ","]
    ordinary = [index for index in range(vocab_size - 2) if index not in _SPECIAL.values()]
    names = words + [f"word{index}" for index in ordinary]
    vocabulary = dict(zip(names, ordinary, strict=False)) | _SPECIAL
    tokenizer = BertTokenizer(vocab=vocabulary)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    return tokenizer


def _write_preprocessor(folder: Path, image_size: int) -> None:
    config = {
        "do_normalize": True,
        "do_resize": True,
        "image_mean": OPENAI_CLIP_MEAN,
        "image_processor_type": "BlipImageProcessor",
        "image_std": OPENAI_CLIP_STD,
        "resample": 3,
        "size": {"height": image_size, "width": image_size},
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
