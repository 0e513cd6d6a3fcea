"""transformers' own text side of a BLIP, and what of it is trained: LoRA through peft, or all.

The image side is not here: it is frozen, and what it says of images is handed in (embedded.py).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
)

from producer.manifest.parquet import NotInstalled
from worker.blip.adapter_names import places
from worker.blip.checkpoint import PARTS, Checkpoint
from worker.blip.errors import CheckpointError
from worker.blip.tokenizer import Tokenizer
from worker.training.embeddings import initial_embeddings
from worker.training.finetune.settings import Settings, Task

HEADS = ("itm_head", "vision_proj", "text_proj")
"""The modules of matching that are trained whole."""
WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"
BIAS = "text_decoder.cls.predictions.bias"
"""What is trained whole where the tokenizer is a pack's own; the head is tied to the words."""
PREFIX = "base_model.model."
"""Before the names of modules in PEFT's files."""
_CLASSES: dict[Task, Any] = {
    "caption": BlipForConditionalGeneration,
    "match": BlipForImageTextRetrieval,
}


@dataclass
class Trained:
    """A model with the parameters that are trained, on the CPU.

    model: BlipForConditionalGeneration or BlipForImageTextRetrieval without its vision_model.
    adapted: peft's wrapping of it; None where all is trained.
    """

    model: Any
    adapted: Any | None
    tokenizer: Tokenizer

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        root = self.model if self.adapted is None else self.adapted
        return {n: p for n, p in root.named_parameters() if p.requires_grad}

    def peft_config(self) -> Any:
        """How it was adapted, as peft has it. For a model that is."""
        if self.adapted is None:
            raise ValueError("all of the model was trained: it is no pack")
        return self.adapted.peft_config["default"]

    def tensors(self) -> dict[str, Tensor]:
        """What was trained, under the names of the output: the checkpoint's, or PEFT's file's."""
        if self.adapted is None:
            return {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        from peft import get_peft_model_state_dict

        found: dict[str, Tensor] = get_peft_model_state_dict(
            self.adapted, save_embedding_layers=False
        )
        whole = {WORDS, BIAS} & set(dict(self.model.named_parameters()))
        for name in whole:
            tensor = self.model.get_parameter(name)
            if tensor.requires_grad:
                found[PREFIX + name] = tensor
        return {name: tensor.detach() for name, tensor in found.items()}


def load(checkpoint: Checkpoint, settings: Settings) -> Trained:
    """The text side of a checkpoint, ready to be trained. New values follow from the seed.

    Raises:
        CheckpointError: the weights do not fit, or the tokenizer lacks special tokens.
        ValueError: the targets name nothing, or what no pack may adapt.
        NotInstalled: without peft.
    """
    torch.manual_seed(settings.seed)
    model = _model(checkpoint, settings.task)
    tokenizer = checkpoint.tokenizer
    if settings.tokenizer is not None:
        tokenizer = take_words(model, checkpoint.folder, settings.tokenizer)
    if settings.full:
        model.requires_grad_(True)
        return Trained(model, None, tokenizer)
    model.requires_grad_(False)
    adapted = _adapted(model, settings)
    _check(adapted.targeted_module_names, checkpoint, settings)
    if settings.tokenizer is not None:
        for name in (WORDS, BIAS):
            model.get_parameter(name).requires_grad_(True)
    return Trained(model, adapted, tokenizer)


def _model(checkpoint: Checkpoint, task: Task) -> Any:
    """The task's class over the checkpoint's tensors, float32; nothing is initialised or copied."""
    config = BlipConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    parts = [f"{part}." for part in PARTS[task] if part != "vision_model"]
    state = checkpoint.weights.load(parts, torch.float32, torch.device("cpu"))
    with torch.device("meta"):
        model = _CLASSES[task](config)
    model.vision_model = nn.Identity()
    text = model.text_decoder.bert if task == "caption" else model.text_encoder
    length = config.text_config.max_position_embeddings
    text.embeddings.position_ids = torch.arange(length).expand(1, -1)
    if task == "caption":
        # Older files hold the tied tensors twice.
        state = {n: t for n, t in state.items() if ".cls.predictions.decoder." not in n}
    state = {n: t for n, t in state.items() if not n.endswith("position_ids")}
    try:
        found = model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as exc:
        raise CheckpointError(f"the weights do not fit config.json: {exc}") from exc
    if task == "caption":
        _tie(model)
    missing = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if missing or found.unexpected_keys:
        raise CheckpointError(f"the checkpoint lacks {(missing or found.unexpected_keys)[0]}")
    return model


def _tie(model: Any) -> None:
    head = model.text_decoder.cls.predictions
    head.decoder.weight = model.text_decoder.bert.embeddings.word_embeddings.weight
    head.decoder.bias = head.bias


def recompute(model: Any) -> None:
    """Gradient checkpointing: layers are run again backwards instead of kept."""
    newer = getattr(model, "activation_checkpointing_enable", None)  # its name in transformers 6
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})
    # For the reentrant kind transformers has embeddings require gradients, which frozen ones that
    # are added to in place cannot.
    model.disable_input_require_grads()


def take_words(model: Any, old: Path, new: Path) -> Tokenizer:
    """Give a captioner another tokenizer, that of the folder `new`, and embeddings for its words.

    Raises CheckpointError when the folder has no tokenizer, or none with BLIP's special tokens.
    """
    try:
        words = AutoTokenizer.from_pretrained(new, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{new} holds no tokenizer that can be read") from exc
    tokenizer = Tokenizer(new, {"vocab_size": len(words)})
    decoder = model.text_decoder
    before = AutoTokenizer.from_pretrained(old, local_files_only=True, trust_remote_code=False)
    embeddings, bias = initial_embeddings(
        before,
        words,
        decoder.bert.embeddings.word_embeddings.weight.detach(),
        decoder.cls.predictions.bias.detach(),
    )
    size, width = embeddings.shape
    table = nn.Embedding(size, width, tokenizer.pad_id, _weight=embeddings)
    decoder.bert.embeddings.word_embeddings = table
    decoder.cls.predictions.decoder = nn.Linear(width, size, device="meta")
    decoder.cls.predictions.bias = nn.Parameter(bias)
    _tie(model)
    text = model.config.text_config
    text.vocab_size, text.pad_token_id = size, tokenizer.pad_id
    text.bos_token_id, text.sep_token_id = tokenizer.bos_id, tokenizer.sep_id
    return tokenizer


def _adapted(model: Any, settings: Settings) -> Any:
    """The model with LoRA (Hu et al. 2021) at its targets, and matching's heads to be trained."""
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as exc:
        raise NotInstalled("Fine-tuning needs peft: pip install 'captionq[finetune]'") from exc
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.pattern,
        modules_to_save=list(HEADS) if settings.task == "match" else None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what peft asks of transformers
            adapted = get_peft_model(model, config)
    except ValueError as exc:
        raise ValueError(
            f"--targets: no linear module's name is {settings.pattern!r} from end to end, or one "
            f"that is cannot be adapted ({exc})"
        ) from exc
    for name in adapted.targeted_module_names:
        if not isinstance(model.get_submodule(name).base_layer, nn.Linear):
            raise ValueError(f"--targets: {name} is not linear; only linear modules are adapted")
    return adapted


def _check(names: Sequence[str], checkpoint: Checkpoint, settings: Settings) -> None:
    """That the engine will read the pack, before hours are spent on it."""
    known = places(settings.task, checkpoint.text)
    for name in names:
        if name not in known:
            raise ValueError(f"--targets: no pack can adapt {name}, only the text layers can be")
        least = min(known[name].size_in, known[name].size_out)
        if settings.rank > least:
            raise ValueError(f"--rank {settings.rank} is above the {least} of {name}")
