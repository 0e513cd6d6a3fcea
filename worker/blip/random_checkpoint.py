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
_POOL = 4_194_301  # a prime: rows and layers that read the pool again start elsewhere in it
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
    config = _config(shape)
    normal = _Normal(seed)
    state: dict[str, Tensor] = {}
    for task in tasks:
        with torch.device("meta"):
            names = _CLASSES[task](config).state_dict()
        for name, empty in names.items():
            # The head is tied, so absent; the second task shares the first one's ViT.
            if "cls.predictions.decoder." not in name and name not in state:
                width = shape.vision_width if name.startswith("vision_") else shape.text_width
                state[name] = _filled(name, empty.shape, width, normal)
    for name, tensor in state.items():
        if name.endswith(("word_embeddings.weight", "crossattention.output.dense.weight")):
            tensor.mul_(spread)
        elif name == "text_decoder.cls.predictions.bias":
            tensor[_SPECIAL["[SEP]"]] += end_bias
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [_CLASSES[tasks[0]].__name__]
    config.save_pretrained(folder)
    save_file(state, folder / SAFETENSORS, metadata={"format": "pt"})
    made_up_tokenizer(shape.vocab_size).save_pretrained(folder)
    _write_preprocessor(folder, shape.image_size)
    return folder


class _Normal:
    """Standard normal numbers: a few million are drawn, and read round and round.

    Drawing each of BLIP-base's 224 million would take longer than all else that a test does.
    """

    def __init__(self, seed: int) -> None:
        self._pool = torch.randn(_POOL, generator=torch.Generator().manual_seed(seed))
        self._at = 0

    def __call__(self, shape: torch.Size) -> Tensor:
        pieces, missing = [], shape.numel()
        while missing:
            piece = self._pool[self._at : self._at + missing]
            self._at = (self._at + len(piece)) % _POOL
            pieces.append(piece)
            missing -= len(piece)
        return torch.cat(pieces).view(shape)


def _filled(name: str, shape: torch.Size, width: int, normal: _Normal) -> Tensor:
    """BLIP's initialisation: LayerNorms neutral, biases 0, the rest normal.

    The deviation is 0.02 at the published width, and as lively at others. (BlipVisionConfig's own
    default, 1e-10, leaves the ViT dead.)
    """
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    deviation = 0.02 * (BASE.vision_width / width) ** 0.5
    return normal(shape).mul_(deviation)


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
        },
        vision_config={
            "hidden_size": shape.vision_width,
            "intermediate_size": 4 * shape.vision_width,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": shape.vision_heads,
            "image_size": shape.image_size,
            "patch_size": shape.patch_size,
            "initializer_range": 0.02,
        },
    )


def made_up_tokenizer(vocab_size: int) -> Any:
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
