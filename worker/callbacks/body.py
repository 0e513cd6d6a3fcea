"""What a receiver is told: a small JSON document, of which large parts of a result are left out."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

MAX_BODY_BYTES = 20_000
"""Standard Webhooks recommends less than 20 kB."""

_MAPS = ("explanation", "explanations")
_VECTORS = ("embeddings",)
_TOKENS = ("tokens", "token_logprobs", "processed_token_logprobs")
_LISTS = ("items", "regions", "ranking", "matches", "captions")


def body(kind: str, at: str, data: Mapping[str, Any]) -> bytes:
    """The body of a callback, of at most MAX_BODY_BYTES.

    Fields without a value are not written. Where it would be larger, `data` lacks first where the
    model looked, then vectors, then tokens with their probabilities, then lists of its own, the
    largest first; `left_out` names what. `data` has the id by which the whole can be asked for.

    Args:
        kind: such as job.succeeded.
        at: when that happened, ISO 8601.
        data: a result, or a batch, as JSON.
    """
    kept: dict[str, Any] = _without(data, lambda _name, value: value is None)
    left_out: list[str] = []
    cuts = [_MAPS, _VECTORS, _TOKENS]
    while len(text := _written(kind, at, kept, left_out)) > MAX_BODY_BYTES:
        names = cuts.pop(0) if cuts else _largest(kept)
        if not names:
            break
        left_out += [name for name in names if _holds(kept, name)]
        kept = _without(kept, partial(_is_one_of, names))
    else:
        return text
    named = ("job_id", "batch_id", "task", "state", "finished_at")
    least = {name: kept[name] for name in named if name in kept}
    return _written(kind, at, least, [name for name in data if name not in least])


def _largest(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The list of `data` that takes the most room; empty when it has none."""
    sizes = {name: len(json.dumps(data[name])) for name in _LISTS if name in data}
    return (max(sizes, key=lambda name: sizes[name]),) if sizes else ()


def _is_one_of(names: tuple[str, ...], name: str, _value: Any) -> bool:
    return name in names


def _written(kind: str, at: str, data: Mapping[str, Any], left_out: list[str]) -> bytes:
    document = {"type": kind, "timestamp": at, "data": data}
    if left_out:
        document["left_out"] = left_out
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(
        errors="backslashreplace"
    )


def _without(value: Any, drop: Callable[[str, Any], bool]) -> Any:
    """A JSON value without those fields, however deep they lie."""
    if isinstance(value, Mapping):
        return {name: _without(one, drop) for name, one in value.items() if not drop(name, one)}
    if isinstance(value, list):
        return [_without(one, drop) for one in value]
    return value


def _holds(value: Any, name: str) -> bool:
    if isinstance(value, Mapping):
        return name in value or any(_holds(one, name) for one in value.values())
    return isinstance(value, list) and any(_holds(one, name) for one in value)
