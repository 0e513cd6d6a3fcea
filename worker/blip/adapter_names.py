"""Where PEFT's module names, which are the published checkpoint's, lie in our fused modules."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from worker.blip.config import TextConfig
from worker.blip.text import LAYER_NAMES

Task = Literal["caption", "match"]
Shape = tuple[int | None, ...]
"""None is any number."""

MATCH_HEADS = ("vision_proj", "text_proj", "itm_head")
_STACKS: Mapping[Task, str] = {"caption": "text_decoder.bert.", "match": "text_encoder."}
_HEAD = "text_decoder.cls.predictions."
BIAS = f"{_HEAD}bias"
TIED = (f"{_HEAD}decoder.weight", f"{_HEAD}decoder.bias")
"""Copies, in some files, of the word embeddings and of BIAS."""


class Place(NamedTuple):
    """A linear layer of ours, of whose outputs a layer of the checkpoint makes one block.

    module: its path in TextDecoder or Matcher. size_out, size_in: of the checkpoint's layer.
    block: counted from 0, of `blocks` equal ones.
    """

    module: str
    size_out: int
    size_in: int
    block: int = 0
    blocks: int = 1


def words_name(task: Task) -> str:
    """The word embeddings, to which a decoder's head is tied."""
    return f"{_STACKS[task]}embeddings.word_embeddings.weight"


def places(task: Task, config: TextConfig) -> dict[str, Place]:
    """The linear layers that a pack may adapt, by the checkpoint's names."""
    width, inner, seen = config.hidden_size, config.intermediate_size, config.encoder_hidden_size
    sizes = {"up": (inner, width), "down": (width, inner)}
    found = {}
    for index in range(config.num_layers):
        theirs, ours = f"{_STACKS[task]}encoder.layer.{index}.", f"text.layers.{index}."
        for name, inside in LAYER_NAMES.items():
            if not name.endswith("norm"):
                size = sizes.get(name, (width, width))
                found[f"{theirs}{inside}"] = Place(f"{ours}{name}", *size)
        found |= _blocks(
            f"{theirs}attention.self.", ("query", "key", "value"), f"{ours}qkv", width, width
        )
        cross = f"text.cross_key_values.{index}"
        found |= _blocks(f"{theirs}crossattention.self.", ("key", "value"), cross, width, seen)
    if task == "caption":
        found[f"{_HEAD}transform.dense"] = Place("transform", width, width)
    return found


def whole_tensors(task: Task, config: TextConfig, projection_size: int) -> dict[str, Shape]:
    """The tensors that a pack may bring in place of the checkpoint's, by its names.

    projection_size: of a matching checkpoint's ITC vectors.
    """
    width = config.hidden_size
    found: dict[str, Shape] = {words_name(task): (None, width)}
    if task == "caption":
        return {**found, BIAS: (None,)}
    inputs = {
        "vision_proj": (projection_size, config.encoder_hidden_size),
        "text_proj": (projection_size, width),
        "itm_head": (2, width),
    }
    for head, shape in inputs.items():
        found[f"{head}.weight"], found[f"{head}.bias"] = shape, shape[:1]
    return found


def _blocks(
    theirs: str, names: Iterable[str], ours: str, size_out: int, size_in: int
) -> dict[str, Place]:
    known = tuple(names)
    return {
        f"{theirs}{name}": Place(ours, size_out, size_in, at, len(known))
        for at, name in enumerate(known)
    }
