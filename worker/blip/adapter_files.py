"""PEFT's two files of a LoRA adapter, read without peft.

Nothing is taken for granted: the settings that would change a number are known or refused, and the
names and shapes in the file's header are checked before any tensor is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.blip.adapter_names import Shape
from worker.blip.errors import PackError
from worker.blip.pack_card import read_json

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
_OF_TRAINING = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "exclude_modules",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core",
    "modules_to_save", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type",
}  # fmt: skip
"""Settings that say how an adapter was trained, or nothing that its tensors do not say."""
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal")
"""Ways of initialising that leave the base's weights alone (PiSSA, OLoRA, CorDA ... do not)."""


@dataclass(frozen=True)
class Factors:
    """LoRA of one module of the checkpoint: down [r, in], up [out, r], and what scales them."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Adapter:
    """What the files hold, by the checkpoint's names; float32 on the host, finite.

    factors: of linear layers. tensors: those that take the place of the checkpoint's.
    """

    factors: Mapping[str, Factors]
    tensors: Mapping[str, Tensor]


def read_adapter(
    folder: Path, layers: Mapping[str, tuple[int, int]], whole: Mapping[str, Shape]
) -> Adapter:
    """Read and verify a folder.

    layers: the linear layers that may be adapted, (out, in) of each. whole: the tensors that may
    take the place of the checkpoint's; None in a shape is any number.

    Raises:
        PackError: a file is missing or broken, a setting or a module is not supported, a tensor has
            another shape or type than it must, or holds a number that is none.
    """
    config = _config(folder)
    try:
        with safe_open(folder / TENSOR_FILE, framework="pt") as file:
            shapes = {}
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                part = file.get_slice(name)
                if part.get_dtype() != "F32":
                    raise PackError(f"{name} is {part.get_dtype()}; a pack's tensors are float32")
                shapes[_known(name)] = tuple(part.get_shape())
            for name, shape in shapes.items():
                _check(name, shape, shapes, layers, whole)
            tensors = {name: file.get_tensor(PREFIX + name) for name in shapes}
    except FileNotFoundError:
        raise PackError(f"the pack has no {TENSOR_FILE}") from None
    except (OSError, SafetensorError) as exc:
        raise PackError(f"{TENSOR_FILE} is no readable safetensors file") from exc
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise PackError(f"{name} holds infinite numbers, or what is none")
    factors = {
        module: _factors(tensors[module + DOWN], tensors[module + UP], config)
        for module in (name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN))
    }
    return Adapter(factors, {name: tensors[name] for name in tensors if name in whole})


def _config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, with nothing in it that changes a number and is not known here."""
    config = read_json(folder / CONFIG_FILE)
    if config.pop("peft_type", None) != "LORA":
        raise PackError(f"{CONFIG_FILE}: peft_type must be LORA")
    alpha, stabilised = config.pop("lora_alpha", None), config.pop("use_rslora", False)
    if type(alpha) not in (int, float) or not 0 < alpha < 1e6 or type(stabilised) is not bool:
        raise PackError(f"{CONFIG_FILE}: lora_alpha must be a positive number, use_rslora a bool")
    if config.pop("bias", "none") != "none":
        raise PackError(f"{CONFIG_FILE}: bias is not supported but for 'none'")
    start = config.pop("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise PackError(
            f"{CONFIG_FILE}: init_lora_weights={start!r} changes the base's own weights"
        )
    for name, value in config.items():
        if name not in _OF_TRAINING and value not in (None, False, {}, []):
            raise PackError(f"{CONFIG_FILE}: {name} is not supported")
    return {"alpha": float(alpha), "stabilised": stabilised}


def _known(name: str) -> str:
    if not name.startswith(PREFIX):
        raise PackError(f"{name} is no tensor of a PEFT adapter: it has no {PREFIX}")
    return name.removeprefix(PREFIX)


def _check(
    name: str,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    layers: Mapping[str, tuple[int, int]],
    whole: Mapping[str, Shape],
) -> None:
    """Refuse a tensor that has no place, or not this shape, among those of the file."""
    for own, other in ((DOWN, UP), (UP, DOWN)):
        module = name.removesuffix(own)
        if module == name:
            continue
        if module not in layers:
            raise PackError(f"{module} cannot be adapted: of the text stack, its linear layers can")
        if module + other not in shapes:
            raise PackError(f"{name} has no {other.removeprefix('.')} beside it")
        size_out, size_in = layers[module]
        rank = shape[0 if own == DOWN else -1] if len(shape) == 2 else 0
        expected = (rank, size_in) if own == DOWN else (size_out, rank)
        paired = shapes[module + other][-1 if own == DOWN else 0]
        if shape != expected or not 0 < rank <= min(size_in, size_out) or paired != rank:
            raise PackError(
                f"{name} is {list(shape)}, which fits no LoRA of [{size_out}, {size_in}]"
            )
        return
    if name not in whole:
        raise PackError(f"{name} cannot be replaced: it is no tensor that a pack may bring")
    expected_whole = whole[name]
    if len(shape) != len(expected_whole) or any(
        wanted not in (None, size) for size, wanted in zip(shape, expected_whole, strict=True)
    ):
        raise PackError(f"{name} is {list(shape)}, not {list(expected_whole)}")


def _factors(down: Tensor, up: Tensor, config: Mapping[str, Any]) -> Factors:
    rank = len(down)
    return Factors(down, up, config["alpha"] / (sqrt(rank) if config["stabilised"] else rank))
