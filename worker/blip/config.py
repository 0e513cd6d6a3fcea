"""A checkpoint's config.json and preprocessor_config.json as plain, checked values.

They are read raw, not through transformers' config classes: those fill in what a file does not
state, and the defaults are wrong for BLIP (`BlipTextConfig` assumes 8 text heads, the published
checkpoints have 12; the weights load either way and give wrong numbers).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.blip.errors import CheckpointError

BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, BlipImageProcessor's default


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the ViT (Dosovitskiy et al. 2021): pre-LN, class token, learned positions."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: tuple[int, int]  # (height, width)
    patch_size: int
    layer_norm_eps: float

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Patches and the class token."""
        return self.grid[0] * self.grid[1] + 1


@dataclass(frozen=True)
class TextConfig:
    """Shape of the BERT-style text stack (post-LN) and of its cross-attention to the image."""

    hidden_size: int
    encoder_hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    max_positions: int
    layer_norm_eps: float


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the ViT's input: squash to `size`, times `scale`, mean and std."""

    size: tuple[int, int]  # (height, width)
    resample: int  # a PIL.Image.Resampling value
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def vision_config(config: Mapping[str, Any]) -> VisionConfig:
    """The ViT of config.json. Raises CheckpointError for what it does not state."""
    raw = _section(config, "vision_config")
    size = _pair(raw["image_size"], "vision_config.image_size")
    patch = _pair(raw["patch_size"], "vision_config.patch_size")
    if patch[0] != patch[1] or size[0] % patch[0] or size[1] % patch[1]:
        raise CheckpointError(f"a patch size of {patch} does not tile an image size of {size}")
    return VisionConfig(
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        image_size=size,
        patch_size=patch[0],
        layer_norm_eps=raw.get("layer_norm_eps", 1e-5),
    )


def text_config(config: Mapping[str, Any]) -> TextConfig:
    """The text stack of config.json. Raises CheckpointError for what it does not state."""
    raw = _section(config, "text_config")
    return TextConfig(
        hidden_size=raw["hidden_size"],
        encoder_hidden_size=_section(config, "vision_config")["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        vocab_size=raw["vocab_size"],
        max_positions=raw.get("max_position_embeddings", 512),
        layer_norm_eps=raw.get("layer_norm_eps", 1e-12),
    )


def preprocessing(raw: Mapping[str, Any]) -> Preprocessing:
    """The content of preprocessor_config.json. Raises CheckpointError for another recipe."""
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if raw.get(step, True) is not True:
            raise CheckpointError(f"the preprocessor says {step}=false, which is not supported")
    if raw.get("do_center_crop") or raw.get("do_pad"):
        raise CheckpointError("the preprocessor crops or pads; BLIP squashes, nothing else is done")
    missing = [key for key in ("size", "image_mean", "image_std") if key not in raw]
    if missing:
        raise CheckpointError(f"the preprocessor config does not state {', '.join(missing)}")
    if raw.get("resample", BICUBIC) not in range(6):
        raise CheckpointError(f"the preprocessor's resample is {raw['resample']!r}, no PIL filter")
    return Preprocessing(
        size=_pair(raw["size"], "the preprocessor's size"),
        resample=raw.get("resample", BICUBIC),
        scale=raw.get("rescale_factor", 1 / 255),
        mean=_rgb(raw["image_mean"], "image_mean"),
        std=_rgb(raw["image_std"], "image_std"),
    )


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """`config[name]`, refused unless it states the head count and the sizes."""
    if config.get("model_type") != "blip":
        raise CheckpointError(f"model_type is {config.get('model_type')!r}, not 'blip'")
    raw = config.get(name)
    if not isinstance(raw, Mapping):
        raise CheckpointError(f"config.json has no {name}")
    required = ["num_attention_heads", "num_hidden_layers", "hidden_size", "intermediate_size"]
    required += ["vocab_size"] if name == "text_config" else ["image_size", "patch_size"]
    missing = [key for key in required if key not in raw]
    if missing:
        raise CheckpointError(
            f"config.json does not state {', '.join(f'{name}.{key}' for key in missing)}; "
            "a guess would load and give wrong numbers"
        )
    for key in set(required) - {"image_size", "patch_size"}:
        if type(raw[key]) is not int or raw[key] < 1:
            raise CheckpointError(f"{name}.{key} is {raw[key]!r}, not a positive whole number")
    if raw.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"{name}.hidden_act is {raw['hidden_act']!r}; only 'gelu' is BLIP")
    if raw["hidden_size"] % raw["num_attention_heads"]:
        raise CheckpointError(f"{name}: hidden_size is not a multiple of num_attention_heads")
    return raw


def _pair(value: Any, name: str) -> tuple[int, int]:
    """(height, width) from the three ways in which the files write a size."""
    match value:
        case int():
            return value, value
        case {"height": int() as height, "width": int() as width}:
            return height, width
        case [int() as height, int() as width]:
            return height, width
    raise CheckpointError(f"{name} is {value!r}, not a height and a width")


def _rgb(value: Any, name: str) -> tuple[float, float, float]:
    match value:
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            return float(red), float(green), float(blue)
    raise CheckpointError(f"the preprocessor's {name} is {value!r}, not three numbers")
