"""Packs: what adapts a loaded checkpoint to a language or a domain, read and put on its device.

A pack's files are data: none of them is ever executed. What a pack does not bring is the
checkpoint's own, and is shared with it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from worker.blip.adapter_files import (
    CONFIG_FILE,
    MAX_JSON_BYTES,
    TENSOR_FILE,
    Adapter,
    Shape,
    read_adapter,
)
from worker.blip.adapter_names import BIAS, MATCH_HEADS, Place, places, words_name
from worker.blip.checkpoint import Checkpoint, Modules
from worker.blip.errors import CheckpointError, PackError
from worker.blip.linear import Linear
from worker.blip.lora import LowRank, beside, with_lora, with_modules
from worker.blip.matching import Matcher
from worker.blip.pack_card import PACK_FILE, PackCard, read_card
from worker.blip.text import TextDecoder
from worker.blip.tokenizer import Tokenizer
from worker.blip.weights import Weights

ModuleT = TypeVar("ModuleT", bound=nn.Module)

MAX_TOKENIZER_BYTES = 100_000_000  # XLM-R's tokenizer.json, of 250,002 pieces, has 17 MB
TOKENIZER_FILES = (
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pack:
    """A pack on the device of the engine that loaded it, for that engine's calls alone.

    language: BCP 47, or None. revision: 12 hex digits of the SHA-256 over the files that decide
    what it says. tokenizer: the pack's own, else the checkpoint's. bytes: of its tensors on the
    device. decoder, matcher: the checkpoint's with this pack in all rows; they share its tensors.
    lora: by the paths of the layers in these.
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


class PackLoader:
    """Reads packs of one loaded checkpoint. Any thread may ask, several at once too."""

    def __init__(self, checkpoint: Checkpoint, modules: Modules, device: torch.device) -> None:
        self._folder, self._text = checkpoint.folder, checkpoint.text
        self._model_id, self._revision = checkpoint.model_id, checkpoint.revision
        self._tokenizer, self._modules, self._device = checkpoint.tokenizer, modules, device
        self._lock = Lock()

    def load(self, folder: Path) -> Pack:
        """Read, verify, and put a pack on the device.

        Raises:
            PackError: the folder is no pack, the pack is another checkpoint's, or cannot be used;
                the message says why.
        """
        _check_sizes(folder)
        card = read_card(folder)
        try:
            self._check_base(card)
            return self._made(folder, card)
        except PackError as exc:
            raise PackError(f"{card.name}: {exc}") from exc

    def _made(self, folder: Path, card: PackCard) -> Pack:
        task = card.task
        base = self._base(task)
        where = places(task, self._text.num_layers)
        adapter = read_adapter(
            folder, {name: _size(base, at) for name, at in where.items()}, _whole(base, task)
        )
        tokenizer = self._own_tokenizer(folder, adapter, words_name(task))
        kept = base.text.words.weight
        on_device = {n: t.to(kept.device, kept.dtype) for n, t in adapter.tensors.items()}
        lora = _fused(adapter, base, where, kept)
        modules = _others(base, task, on_device)
        adapted = with_modules(with_lora(base, lora), modules)
        tensors = [low for one in lora.values() for low in (one.down, one.up)]
        tensors += [t for module in modules.values() for t in _held(module)]
        return Pack(
            name=card.name,
            language=card.language,
            task=task,
            revision=_revision(folder),
            tokenizer=tokenizer,
            bytes=sum(t.numel() * t.element_size() for t in tensors),
            base=base,
            lora=lora,
            decoder=adapted if isinstance(adapted, TextDecoder) else None,
            matcher=adapted if isinstance(adapted, Matcher) else None,
        )

    def _check_base(self, card: PackCard) -> None:
        if card.base.revision != self._revision and card.base.digest != self.digest:
            raise PackError(
                f"it was trained on {card.base.model_id} at revision {card.base.revision}, and "
                f"cannot adapt {self._model_id} at revision {self._revision}"
            )

    @property
    def digest(self) -> str:
        """Over all tensors of the checkpoint; computed once, when first asked for."""
        with self._lock:
            return self._computed_digest

    @cached_property
    def _computed_digest(self) -> str:
        return Weights(self._folder).digest_of("")

    def _base(self, task: str) -> TextDecoder | Matcher:
        base = self._modules.decoder if task == "caption" else self._modules.matcher
        if base is None:
            raise PackError(f"it is for {task}, which {self._model_id} is not loaded for")
        return base

    def _own_tokenizer(self, folder: Path, adapter: Adapter, words: str) -> Tokenizer:
        """The pack's tokenizer; the checkpoint's where it has none."""
        own = adapter.tensors.get(words)
        size = self._text.vocab_size if own is None else len(own)
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            if size != self._text.vocab_size:
                raise PackError(f"it has embeddings of {size} tokens, and no tokenizer for them")
            return self._tokenizer
        try:
            return Tokenizer(folder, {"vocab_size": size})
        except CheckpointError as exc:
            raise PackError(f"its tokenizer cannot be used: {exc}") from exc


def _check_sizes(folder: Path) -> None:
    """Before they are read."""
    for name in (PACK_FILE, CONFIG_FILE, *TOKENIZER_FILES):
        most = MAX_TOKENIZER_BYTES if name in TOKENIZER_FILES else MAX_JSON_BYTES
        if (folder / name).is_file() and (folder / name).stat().st_size > most:
            raise PackError(f"{folder.name}: {name} is larger than {most} bytes")


def _size(base: nn.Module, place: Place) -> tuple[int, int]:
    """(out, in) of a linear layer of the checkpoint."""
    layer = base.get_submodule(place.module)
    assert isinstance(layer, Linear)  # noqa: S101 - for mypy: adapter_names names these alone
    return layer.out_features // place.blocks, layer.in_features


def _whole(base: TextDecoder | Matcher, task: Literal["caption", "match"]) -> dict[str, Shape]:
    """The tensors that a pack may bring; None in a shape is its vocabulary's size."""
    found: dict[str, Shape] = {words_name(task): (None, base.text.config.hidden_size)}
    if isinstance(base, TextDecoder):
        return found | {BIAS: (None,)}
    for head in MATCH_HEADS:
        for name, parameter in base.get_submodule(head).named_parameters():
            found[f"{head}.{name}"] = tuple(parameter.shape)
    return found


def _fused(
    adapter: Adapter, base: nn.Module, where: Mapping[str, Place], like: Tensor
) -> dict[str, LowRank]:
    """LoRA by our layers. Those of the blocks of one layer stand side by side, each adding to its
    own block alone: ranks add up, and may differ."""
    by_layer: dict[str, list[LowRank]] = {}
    for name, factors in sorted(adapter.factors.items()):
        place = where[name]
        width, _ = _size(base, place)
        up = torch.zeros(len(factors.down), width * place.blocks)
        up[:, place.block * width : (place.block + 1) * width] = factors.scale * factors.up.t()
        by_layer.setdefault(place.module, []).append(
            LowRank(factors.down.to(like.device, like.dtype), up.to(like.device, like.dtype))
        )
    return {layer: beside(parts) for layer, parts in by_layer.items()}


def _others(
    base: TextDecoder | Matcher, task: Literal["caption", "match"], tensors: Mapping[str, Tensor]
) -> dict[str, nn.Module]:
    """The modules that take the place of the checkpoint's, over the pack's tensors."""
    found: dict[str, nn.Module] = {}
    words = tensors.get(words_name(task))
    if words is not None:
        found["text.words"] = _over(nn.Embedding, words.shape, {"weight": words})
    if isinstance(base, Matcher):
        for head in MATCH_HEADS:
            own = {kind: tensors.get(f"{head}.{kind}") for kind in ("weight", "bias")}
            if any(tensor is not None for tensor in own.values()):
                found[head] = _head(base.get_submodule(head), own)
    elif words is not None or BIAS in tensors:
        found["vocabulary"] = _vocabulary(base, words, tensors.get(BIAS))
    return found


def _head(base: nn.Module, own: Mapping[str, Tensor | None]) -> nn.Linear:
    weights = {name: base.get_parameter(name) if t is None else t for name, t in own.items()}
    return _over(nn.Linear, weights["weight"].shape[::-1], weights)


def _vocabulary(base: TextDecoder, words: Tensor | None, bias: Tensor | None) -> Linear:
    """The head, tied to the words."""
    if words is None:
        words = base.text.words.weight
    if bias is None:
        bias = base.vocabulary.bias
    if len(words) != len(bias):
        raise PackError(f"{len(words)} word embeddings need as many of {BIAS}, not {len(bias)}")
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


def _held(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _revision(folder: Path) -> str:
    """Over the files that decide what a pack says; its card and README do not."""
    digest = hashlib.sha256()
    for name in sorted((CONFIG_FILE, TENSOR_FILE, *TOKENIZER_FILES)):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                own = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name} {own}\n".encode())
    return digest.hexdigest()[:12]
