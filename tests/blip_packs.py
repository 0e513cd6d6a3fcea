"""Packs made by peft on transformers' BLIP, as training makes them: random LoRA, own words."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
)

from tests.blip_checkpoints import load_quietly
from worker.blip.hub import resolve
from worker.blip.pack_card import Base, PackCard
from worker.blip.weights import Weights

EVERY_CAPTION_LAYER = (
    r"text_decoder\.bert\.encoder\..*(query|key|value|dense)|text_decoder\.cls\..*\.dense"
)
EVERY_MATCH_LAYER = r"text_encoder\.encoder\..*(query|key|value|dense)"
QUERY_VALUE = r"text_decoder.*\.(query|value)"
SPECIAL = (
    "[MASK]",
    "[ENC]",
    "[SEP]",
    "[DEC]",
    "[UNK]",
    "[PAD]",
    "[CLS]",
)  # not in the base's order


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a pack is made. words: how many tokens its own vocabulary has, None for the base's."""

    name: str = "test"
    task: Literal["caption", "match"] = "caption"
    language: str | None = None
    targets: str = EVERY_CAPTION_LAYER
    rank: int = 4
    words: int | None = None
    seed: int = 0
    strength: float = 0.3
    lora: Any = None


def write_pack(folder: Path, base: Path, made: Made) -> Any:
    """Write a pack; returns the PeftModel that it is of, in float32, to compare with."""
    torch.manual_seed(made.seed)
    kind = BlipForConditionalGeneration if made.task == "caption" else BlipForImageTextRetrieval
    model = load_quietly(kind, base)
    if made.words is not None:
        _resize(model, made.words)
        own_tokenizer(made.words).save_pretrained(folder)
    saved = ["itm_head", "vision_proj", "text_proj"] if made.task == "match" else None
    config = LoraConfig(
        r=made.rank,
        lora_alpha=2 * made.rank,
        target_modules=made.targets,
        modules_to_save=saved,
        **(made.lora or {}),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=made.strength * parameter.shape[1] ** -0.5)
            elif "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    if made.words is not None:
        _add_words(folder, model)
    write_card(folder, base, made)
    return adapted


def write_card(folder: Path, base: Path, made: Made) -> None:
    source, weights = resolve(base), Weights(base)
    digest = Base(source.model_id, source.revision or weights.digest(), weights.digest_of(""))
    PackCard(name=made.name, task=made.task, base=digest, language=made.language).write(folder)


def own_tokenizer(words: int) -> Any:
    """A WordPiece tokenizer whose special ids are none of the base's."""
    letters = "abcdefghijklmnopqrstuvwxyzäöüß"
    pieces = [*letters, *(f"##{letter}" for letter in letters), ".", ",", *SPECIAL]
    pieces += [f"wort{index}" for index in range(words - len(pieces))]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=False, strip_accents=False)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    assert len(tokenizer) == words
    return tokenizer


def _resize(model: Any, words: int) -> None:
    """Word embeddings of another vocabulary, tied to the head, as lively as the base's."""
    decoder = model.text_decoder
    old = decoder.bert.embeddings.word_embeddings.weight
    new = nn.Embedding(words, old.shape[1])
    with torch.no_grad():
        new.weight.normal_(std=float(old.std()))
    decoder.bert.embeddings.word_embeddings = new
    head = decoder.cls.predictions
    head.decoder = nn.Linear(old.shape[1], words)
    head.decoder.weight = new.weight
    head.bias = head.decoder.bias = nn.Parameter(0.5 * torch.randn(words))


def _add_words(folder: Path, model: Any) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "adapter_model.safetensors")
    decoder = model.text_decoder
    prefix = "base_model.model.text_decoder."
    embeddings = decoder.bert.embeddings.word_embeddings.weight
    state[f"{prefix}bert.embeddings.word_embeddings.weight"] = embeddings.detach().contiguous()
    state[f"{prefix}cls.predictions.bias"] = decoder.cls.predictions.bias.detach().contiguous()
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@torch.inference_mode()
def caption_logprobs(model: Any, embeddings: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """float32 [N, T - 1, V]: log-probabilities under a transformers decoder of each next token.

    embeddings: [N, S, hidden], the ViT's. rows: token ids, all of one length.
    """
    decoder = model.base_model.model.text_decoder if hasattr(model, "peft_config") else model
    decoder = getattr(decoder, "text_decoder", decoder)
    output = decoder(input_ids=torch.tensor(rows), encoder_hidden_states=embeddings)
    found: Tensor = output.logits[:, :-1].log_softmax(dim=-1)
    return found
