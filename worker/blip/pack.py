"""Packs on the device: a loaded checkpoint, adapted to a language or a domain.

What a pack does not bring is the checkpoint's own, and is shared with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from worker.blip.adapter_names import BIAS, MATCH_HEADS, words_name
from worker.blip.checkpoint import Modules
from worker.blip.errors import PackError
from worker.blip.linear import Linear
from worker.blip.lora import AdaptedLinear, LowRank, beside, linear_at, with_modules
from worker.blip.matching import Matcher
from worker.blip.pack_files import PackContent
from worker.blip.text import TextDecoder
from worker.blip.tokenizer import Tokenizer

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pack:
    """A pack on the device of the engine that loaded it, for that engine's calls alone.

    language: BCP 47, or None. revision: PackContent's. tokenizer: the pack's own, else the
    checkpoint's. bytes: of its tensors on the device. base: what it adapts. lora: by the paths of
    layers in that. decoder or matcher, by its task: the checkpoint's with this pack in all rows.
    """

    name: str
    language: str | None
    task: Literal["caption", "match"]
    revision: str
    tokenizer: Tokenizer
    bytes: int
    base: nn.Module = field(repr=False)
    lora: Mapping[str, LowRank] = field(repr=False)
    decoder: TextDecoder | None = field(repr=False)
    matcher: Matcher | None = field(repr=False)


def load(content: PackContent, modules: Modules) -> Pack:
    """A pack, on the device of the modules that it adapts and in the type of their arithmetic.

    Raises PackError for a task that the modules are not of, and for factors that have no room in
    that type.
    """
    card = content.card
    base = modules.decoder if card.task == "caption" else modules.matcher
    if base is None:
        raise PackError(f"{card.name} is for {card.task}, which is not loaded")
    kept = base.text.words.weight
    tensors = {n: t.to(kept.device, kept.dtype) for n, t in content.adapter.tensors.items()}
    lora = _fused(content, kept)
    own = _modules(base, content, tensors)
    layers = {path: AdaptedLinear(linear_at(base, path), low) for path, low in lora.items()}
    adapted = with_modules(base, {**layers, **own})
    held = [tensor for low in lora.values() for tensor in (low.down, low.up)]
    held += [t for m in own.values() for t in (*m.parameters(), *m.buffers())]
    return Pack(
        name=card.name,
        language=card.language,
        task=card.task,
        revision=content.revision,
        tokenizer=content.tokenizer,
        bytes=sum(t.numel() * t.element_size() for t in held),
        base=base,
        lora=lora,
        decoder=adapted if isinstance(adapted, TextDecoder) else None,
        matcher=adapted if isinstance(adapted, Matcher) else None,
    )


def _fused(content: PackContent, like: Tensor) -> dict[str, LowRank]:
    """LoRA by our layers. Those of the blocks of one layer stand side by side, each adding to its
    own block alone: ranks add up, and may differ."""
    by_layer: dict[str, list[LowRank]] = {}
    for name, factors in sorted(content.adapter.factors.items()):
        place = content.places[name]
        up = torch.zeros(len(factors.down), place.blocks, place.size_out)
        up[:, place.block] = factors.scale * factors.up.t()
        pair = [t.to(like.device, like.dtype) for t in (factors.down, up.flatten(1))]
        if not all(torch.isfinite(one).all() for one in pair):
            raise PackError(f"{content.card.name}: {name} is too large for {like.dtype}")
        by_layer.setdefault(place.module, []).append(LowRank(*pair))
    return {layer: beside(parts) for layer, parts in by_layer.items()}


def _modules(
    base: TextDecoder | Matcher, content: PackContent, tensors: Mapping[str, Tensor]
) -> dict[str, nn.Module]:
    """The modules that take the place of the checkpoint's, over the pack's tensors."""
    found: dict[str, nn.Module] = {}
    words = tensors.get(words_name(content.card.task))
    if words is not None:
        found["text.words"] = nn.Embedding.from_pretrained(words)  # type: ignore[no-untyped-call]
    if isinstance(base, Matcher):
        for head in MATCH_HEADS:
            old = dict(base.get_submodule(head).named_parameters())
            new = {kind: tensors.get(f"{head}.{kind}", tensor) for kind, tensor in old.items()}
            if any(new[kind] is not old[kind] for kind in old):
                found[head] = _over(nn.Linear, new["weight"].shape[::-1], new)
    elif words is not None or BIAS in tensors:
        words = base.text.words.weight if words is None else words
        found["vocabulary"] = _head(words, tensors.get(BIAS, base.vocabulary.bias))
    return found


def _head(words: Tensor, bias: Tensor) -> Linear:
    """A decoder's head, tied to the words."""
    layer = _over(Linear, words.shape[::-1], {"weight": words, "bias": bias})
    if words.device.type == "cpu":
        layer.pack()
    return layer


def _over(
    kind: Callable[..., ModuleT], sizes: Sequence[int], weights: Mapping[str, Tensor]
) -> ModuleT:
    """A module over the given tensors themselves."""
    with torch.device("meta"):
        module = kind(*sizes)
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_(False)
