"""Read a BLIP checkpoint in the published layout, refuse what cannot be right, build the modules.

The layout is transformers': config.json, preprocessor_config.json, tokenizer files, and weights
named vision_model.*, text_decoder.* (BlipForConditionalGeneration), or text_encoder.*,
vision_proj, text_proj, itm_head (BlipForImageTextRetrieval). A folder may carry both kinds over
one vision_model. No code of a checkpoint is ever executed.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from worker.blip.config import (
    Preprocessing,
    TextConfig,
    VisionConfig,
    preprocessing,
    text_config,
    vision_config,
)
from worker.blip.errors import CheckpointError
from worker.blip.hub import Source
from worker.blip.linear import Linear, packs
from worker.blip.matching import Matcher, matcher_weights
from worker.blip.text import TextDecoder, decoder_weights
from worker.blip.tokenizer import Tokenizer
from worker.blip.vision import VisionModel, vision_weights
from worker.blip.weights import Weights

TASKS = ("caption", "match")
PARTS = {
    "caption": ("vision_model", "text_decoder.bert", "text_decoder.cls"),
    "match": ("vision_model", "text_encoder", "vision_proj", "text_proj", "itm_head"),
}
CLASSES = {"caption": "BlipForConditionalGeneration", "match": "BlipForImageTextRetrieval"}

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Modules:
    """The modules of a checkpoint on their device; None for a task that was not asked for."""

    vision: VisionModel
    decoder: TextDecoder | None
    matcher: Matcher | None


class Checkpoint:
    """A checkpoint folder, read and verified; its weights are loaded by `build`."""

    def __init__(self, source: Source, tasks: Iterable[str] | None = None) -> None:
        self.folder = source.folder
        config = _read_json(source.folder / "config.json")
        self.vision: VisionConfig = vision_config(config)
        self.text: TextConfig = text_config(config)
        self.preprocessing: Preprocessing = preprocessing(_preprocessor(source.folder))
        if self.preprocessing.size != self.vision.image_size:
            raise CheckpointError(
                f"the preprocessor's size is {self.preprocessing.size}, "
                f"the ViT's image_size is {self.vision.image_size}"
            )
        if "BlipForQuestionAnswering" in (config.get("architectures") or ()):
            raise CheckpointError(
                "this is a question-answering checkpoint: its decoder reads questions, not images"
            )
        self.weights = Weights(source.folder)
        self.tasks = _tasks(self.weights.names, tasks)
        self.tokenizer = Tokenizer(source.folder, config["text_config"])
        self.model_id = source.model_id
        self.revision = source.revision or self.weights.digest()

    def build(self, dtype: torch.dtype, device: torch.device) -> Modules:
        """Load the weights of the tasks, each tensor once, as `dtype` on `device`.

        torch.int8 is for a CPU: linear layers are rounded, but for the vocabulary's, which decides
        between words; what is between them is bfloat16 where that is fast, else float32.
        """
        quantised = dtype == torch.int8
        if quantised:
            dtype = torch.bfloat16 if packs(torch.bfloat16) else torch.float32
        parts = {part for task in self.tasks for part in PARTS[task]}
        state = self.weights.load([f"{part}." for part in parts], dtype, device)
        layers = self.text.num_layers
        try:
            decoder = matcher = None
            vision = _module(lambda: VisionModel(self.vision), vision_weights(state))
            if "caption" in self.tasks:
                decoder = _module(lambda: TextDecoder(self.text), decoder_weights(state, layers))
            if "match" in self.tasks:
                size = state["text_proj.weight"].shape[0]
                matcher = _module(lambda: Matcher(self.text, size), matcher_weights(state, layers))
        except KeyError as exc:
            raise CheckpointError(f"the checkpoint lacks the tensor {exc.args[0]}") from exc
        if device.type == "cpu":
            for part in (vision, decoder, matcher):
                for name, layer in part.named_modules() if part is not None else ():
                    if isinstance(layer, Linear):
                        layer.quantise() if quantised and name != "vocabulary" else layer.pack()
        return Modules(vision, decoder, matcher)


def missing_parts(names: Iterable[str], task: str) -> list[str]:
    """The parts of `task` that no tensor name belongs to."""
    known = list(names)
    return [part for part in PARTS[task] if not any(n.startswith(f"{part}.") for n in known)]


def _tasks(names: Iterable[str], wanted: Iterable[str] | None) -> frozenset[str]:
    """The tasks to load; refuses one that is wanted, or begun in the file, and lacks heads."""
    missing = {task: missing_parts(names, task) for task in TASKS}
    if wanted is None:
        own = {task: set(PARTS[task]) - {"vision_model"} for task in TASKS}
        chosen = frozenset(task for task in TASKS if own[task] - set(missing[task]))
        if not chosen:
            raise CheckpointError("the checkpoint has neither a text_decoder nor matching heads")
    else:
        chosen = frozenset(wanted)
        if not chosen or not chosen <= set(TASKS):
            raise ValueError(f"tasks are {' and '.join(TASKS)}, not {sorted(chosen)}")
    for task in TASKS:
        if task in chosen and missing[task]:
            raise CheckpointError(
                f"the checkpoint lacks {', '.join(missing[task])}, which {task} needs: "
                f"load a {CLASSES[task]} checkpoint"
            )
    return chosen


def _module(make: Callable[[], ModuleT], weights: dict[str, Tensor]) -> ModuleT:
    """A module over the given tensors themselves: nothing is initialised, nothing is copied."""
    with torch.device("meta"):
        module = make()
    try:
        module.load_state_dict(weights, assign=True)
    except RuntimeError as exc:
        raise CheckpointError(f"the weights do not fit config.json: {exc}") from exc
    return module.requires_grad_(False).eval()


def _preprocessor(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json, or its section in the newer processor_config.json."""
    if (folder / "preprocessor_config.json").is_file():
        return _read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        section = _read_json(folder / "processor_config.json").get("image_processor")
        if isinstance(section, dict):
            return section
    raise CheckpointError("the checkpoint has no preprocessor_config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{path.name} is missing or is no JSON") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} is no JSON object")
    return value
