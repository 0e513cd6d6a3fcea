"""Another language model as the text decoder of a BLIP checkpoint: mBERT, XLM-R, any BERT.

Its layers are those of BLIP's decoder without cross-attention, which is BLIP's where shapes allow,
and new elsewhere. What comes of it writes no captions yet: it is the beginning of
`captionq-worker finetune --full`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.blip.checkpoint import Checkpoint
from worker.blip.weights import SAFETENSORS, Weights
from worker.training.borrowed_tokenizer import ADDED, borrowed
from worker.training.finetune.output import PREPROCESSOR_FILES, copy, write_output

_WORDS = "embeddings.word_embeddings.weight"
_HEADS = {
    "cls.predictions.transform.dense.": "transform.dense.",
    "cls.predictions.transform.LayerNorm.": "transform.LayerNorm.",
    "lm_head.dense.": "transform.dense.",
    "lm_head.layer_norm.": "transform.LayerNorm.",
}
"""BERT's names and RoBERTa's of the head's layers, and BLIP's."""
_FIRST_POSITION = {"bert": 0, "xlm-roberta": 2, "roberta": 2}
"""Which position embedding a text's first token has, by model_type."""
_SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_DEVIATION = 0.02


@dataclass(frozen=True)
class Borrowed:
    """The tokenizer's pieces, the layers, and how many of these have BLIP's cross-attention."""

    pieces: int
    layers: int
    seeing: int


def take_over(source: Path, base: Checkpoint, output: Path, seed: int = 0) -> Borrowed:
    """Write a captioning checkpoint: the base's ViT, the source's tokenizer and layers.

    `source`: a folder with config.json, weights and tokenizer of a masked language model of BERT's
    architecture. New cross-attention starts without effect: its output is 0.

    Raises:
        ValueError: the source is no such model.
        CheckpointError: its weights cannot be read.
        OSError: a file cannot be read or written.
    """
    config = _config(source)
    tokenizer = borrowed(source)
    cpu = torch.device("cpu")
    theirs = _renamed(Weights(source).load([""], torch.float32, cpu))
    ours = base.weights.load(["vision_model.", "text_decoder."], torch.float32, cpu)
    state = {name: tensor for name, tensor in ours.items() if name.startswith("vision_model.")}
    state |= _words(theirs, tokenizer, _FIRST_POSITION[config["model_type"]])
    state |= _layers(theirs, config["num_hidden_layers"])
    state |= _head(theirs)
    cross, seeing = _cross(ours, config, base.vision.hidden_size, seed)
    state |= cross

    def fill(folder: Path) -> None:
        kept = {name: tensor.contiguous().clone() for name, tensor in sorted(state.items())}
        save_file(kept, folder / SAFETENSORS, metadata={"format": "pt"})
        made = _captioner(base.folder, config, state, tokenizer)
        (folder / "config.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        copy(base.folder, folder, PREPROCESSOR_FILES)
        tokenizer.save_pretrained(folder)

    write_output(output, fill)
    return Borrowed(len(tokenizer), config["num_hidden_layers"], seeing)


def _config(source: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ValueError(f"{source}: config.json cannot be read as JSON") from exc
    kind = config.get("model_type")
    if kind not in _FIRST_POSITION:
        raise ValueError(f"{source}: model_type is {kind!r}, not {', '.join(_FIRST_POSITION)}")
    missing = [name for name in _SHAPE if name not in config]
    if missing:
        raise ValueError(f"{source}: config.json does not state {', '.join(missing)}")
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{source}: hidden_act is {config['hidden_act']!r}; BLIP's is 'gelu'")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"{source}: its positions are not absolute, as BLIP's are")
    return config


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the model's own prefix, and with LayerNorm's names of today (once gamma and beta)."""
    prefix = next((name.removesuffix(_WORDS) for name in state if name.endswith(_WORDS)), None)
    if prefix is None:
        raise ValueError("the weights have no word embeddings under BERT's name")
    return {
        name.removeprefix(prefix).replace(".gamma", ".weight").replace(".beta", ".bias"): tensor
        for name, tensor in state.items()
    }


def _words(theirs: Mapping[str, Tensor], tokenizer: Any, first: int) -> dict[str, Tensor]:
    """Embeddings and output bias, with rows for [DEC] and [ENC], which begin as [CLS].

    BLIP has no token types: the embedding of type 0, which every token has, goes to the positions.
    """
    words, rows = theirs[_WORDS], len(tokenizer)
    bias = theirs.get("cls.predictions.bias", theirs.get("lm_head.bias"))
    if bias is None:
        raise ValueError("the weights have no language-model head (cls.predictions or lm_head)")
    if rows > len(words) + len(ADDED):
        raise ValueError(f"{rows} pieces and {len(words)} word embeddings do not belong together")
    missing = max(0, rows - len(words))
    words = torch.cat((words, words[:1].expand(missing, -1)))
    bias = torch.cat((bias, bias[:1].expand(missing)))
    for token in tokenizer.convert_tokens_to_ids(list(ADDED)):
        words[token], bias[token] = words[tokenizer.cls_token_id], bias[tokenizer.cls_token_id]
    positions = theirs["embeddings.position_embeddings.weight"][first:]
    types = theirs.get("embeddings.token_type_embeddings.weight")
    bert = "text_decoder.bert.embeddings."
    return {
        f"{bert}word_embeddings.weight": words,
        f"{bert}position_embeddings.weight": positions if types is None else positions + types[0],
        f"{bert}LayerNorm.weight": theirs["embeddings.LayerNorm.weight"],
        f"{bert}LayerNorm.bias": theirs["embeddings.LayerNorm.bias"],
        "text_decoder.cls.predictions.bias": bias,
    }


def _layers(theirs: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    wanted = tuple(f"encoder.layer.{index}." for index in range(layers))
    return {f"text_decoder.bert.{n}": t for n, t in theirs.items() if n.startswith(wanted)}


def _head(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.replace(old, f"text_decoder.cls.predictions.{new}"): tensor
        for name, tensor in theirs.items()
        for old, new in _HEADS.items()
        if name.startswith(old)
    }


def _cross(
    ours: Mapping[str, Tensor], config: Mapping[str, Any], seen: int, seed: int
) -> tuple[dict[str, Tensor], int]:
    """Cross-attention of every layer, and of how many it is BLIP's."""
    width, seeing = config["hidden_size"], 0
    made: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {
        **{f"self.{name}.weight": (width, seen) for name in ("key", "value")},
        "self.query.weight": (width, width),
        "output.dense.weight": (width, width),
        **{f"self.{name}.bias": (width,) for name in ("query", "key", "value")},
        **{f"output.{name}.bias": (width,) for name in ("dense", "LayerNorm")},
        "output.LayerNorm.weight": (width,),
    }
    random = torch.Generator().manual_seed(seed)
    for index in range(config["num_hidden_layers"]):
        layer = f"text_decoder.bert.encoder.layer.{index}.crossattention."
        own = {name: ours[layer + name] for name in shapes if layer + name in ours}
        fits = {name: tuple(tensor.shape) for name, tensor in own.items()} == shapes
        seeing += fits
        for name, shape in shapes.items():
            made[layer + name] = own[name] if fits else _new(name, shape, random)
    return made, seeing


def _new(name: str, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    if name.startswith("self.") and name.endswith("weight"):
        return torch.randn(shape, generator=random) * _DEVIATION
    return torch.ones(shape) if name == "output.LayerNorm.weight" else torch.zeros(shape)


def _captioner(
    base: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], tokenizer: Any
) -> dict[str, Any]:
    """config.json: the base's, with the source's shapes and the tokenizer's ids."""
    made: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    bert = "text_decoder.bert.embeddings."
    made["architectures"] = ["BlipForConditionalGeneration"]
    made["text_config"] |= {
        **{name: config[name] for name in _SHAPE},
        "layer_norm_eps": config.get("layer_norm_eps", 1e-12),
        "vocab_size": len(state[f"{bert}word_embeddings.weight"]),
        "max_position_embeddings": len(state[f"{bert}position_embeddings.weight"]),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.convert_tokens_to_ids(ADDED[0]),
        "sep_token_id": tokenizer.sep_token_id,
    }
    return made
