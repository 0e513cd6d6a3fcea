"""Where PEFT's module names, which are the published checkpoint's, lie in our fused modules."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from worker.blip.text import LAYER_NAMES

Task = Literal["caption", "match"]

_STACKS = {"caption": "text_decoder.bert.", "match": "text_encoder."}
_WORDS = "embeddings.word_embeddings.weight"
_HEAD = "text_decoder.cls.predictions."
BIAS = f"{_HEAD}bias"
MATCH_HEADS = ("vision_proj", "text_proj", "itm_head")


class Place(NamedTuple):
    """A linear layer of ours, of whose outputs a layer of the checkpoint makes one block.

    module: its path in TextDecoder or Matcher. block: counted from 0, of `blocks` equal ones.
    """

    module: str
    block: int = 0
    blocks: int = 1


def words_name(task: Task) -> str:
    """The word embeddings, to which a decoder's head is tied."""
    return f"{_STACKS[task]}{_WORDS}"


def places(task: Task, layers: int) -> dict[str, Place]:
    """The linear layers that a pack may adapt, by the checkpoint's names."""
    found = {}
    for index in range(layers):
        theirs, ours = f"{_STACKS[task]}encoder.layer.{index}.", f"text.layers.{index}."
        for name, inside in LAYER_NAMES.items():
            if not name.endswith("norm"):
                found[f"{theirs}{inside}"] = Place(f"{ours}{name}")
        found |= _blocks(f"{theirs}attention.self.", ("query", "key", "value"), f"{ours}qkv")
        cross = f"text.cross_key_values.{index}"
        found |= _blocks(f"{theirs}crossattention.self.", ("key", "value"), cross)
    if task == "caption":
        found[f"{_HEAD}transform.dense"] = Place("transform")
    return found


def _blocks(theirs: str, names: Iterable[str], ours: str) -> dict[str, Place]:
    known = tuple(names)
    return {f"{theirs}{name}": Place(ours, at, len(known)) for at, name in enumerate(known)}
