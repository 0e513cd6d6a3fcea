"""LoRA (Hu et al. 2021) beside weights that stay as they are: y = W x + b + scale B A x.

The product with W keeps its form (blocked for oneDNN, int8, bfloat16), and what is of low rank is
the residual that its epilogue adds. A model with LoRA is a copy of the module tree that shares all
its tensors with the original; only the modules that are named are others.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.blip.linear import Linear

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class LowRank:
    """What LoRA adds to a linear layer: (x down^T) up. down: [R, in]; up: [R, out], scaled."""

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """R."""
        return len(self.down)

    @property
    def bytes(self) -> int:
        """Of both."""
        return self.down.nbytes + self.up.nbytes


def beside(parts: Sequence[LowRank]) -> LowRank:
    """The sum of several, as one: ranks add up."""
    return LowRank(torch.cat([p.down for p in parts]), torch.cat([p.up for p in parts]))


def stacked(parts: Sequence[LowRank | None]) -> LowRank:
    """Those of several groups, at least one of them with LoRA, as one: down [groups, R, in], up
    [groups, R, out], filled up with zeros."""
    known = [part for part in parts if part is not None]
    rank = max(part.rank for part in known)
    down, up = (
        like.new_zeros(len(parts), rank, like.shape[1]) for like in (known[0].down, known[0].up)
    )
    for group, part in enumerate(parts):
        if part is not None:
            down[group, : part.rank], up[group, : part.rank] = part.down, part.up
    return LowRank(down, up)


class AdaptedLinear(Linear):
    """A linear layer and the LoRA of all its rows."""

    def __init__(self, base: Linear, low_rank: LowRank) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self._base = base
        self.down, self.up = low_rank.down, low_rank.up

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, in] to [B, T, out]."""
        return self._base.add(hidden, self._delta(hidden))

    def gelu(self, hidden: Tensor) -> Tensor:
        """Exact GELU of the product: [B, T, in] to [B, T, out]."""
        activated: Tensor = functional.gelu(self(hidden))
        return activated

    def add(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """The product plus `residual` [B, T, out]."""
        return self._base.add(hidden, self._delta(hidden).add_(residual))

    def plain_weight(self) -> Tensor:
        """The weights [out, in] with LoRA merged into them, made anew in every call."""
        return self._base.plain_weight() + (self.up.t() @ self.down)

    def _delta(self, hidden: Tensor) -> Tensor:
        """What LoRA adds, a new tensor [B, T, out]."""
        return torch.matmul(functional.linear(hidden, self.down), self.up)


class Groups:
    """Rows that follow each other in groups, for products with a matrix for each group.

    These take equally many rows of each: where groups are of several sizes, all are filled up to
    the largest, with rows that nobody reads.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self.count = len(sizes)
        self._spread: Tensor | None = None
        if len(set(sizes)) > 1:
            most, ends = max(sizes), list(accumulate(sizes))
            starts = [end - size for end, size in zip(ends, sizes, strict=True)]
            rows = [
                [start + at % size for at in range(most)]
                for start, size in zip(starts, sizes, strict=True)
            ]
            places = [g * most + at for g, size in enumerate(sizes) for at in range(size)]
            self._spread = torch.tensor(rows, device=device).flatten()
            self._places = torch.tensor(places, device=device)

    def spread(self, hidden: Tensor) -> Tensor:
        """[B, T, size] to [groups, rows * T, size]."""
        if self._spread is not None:
            hidden = hidden.index_select(0, self._spread)
        return hidden.reshape(self.count, -1, hidden.shape[-1])

    def gathered(self, products: Tensor, batch: int) -> Tensor:
        """[groups, rows * T, size] back to [B, T, size]."""
        if self._spread is None:
            return products.view(batch, -1, products.shape[-1])
        rows = products.view(len(self._spread), -1, products.shape[-1])
        return rows.index_select(0, self._places)


class GroupedLinear(AdaptedLinear):
    """A linear layer, and LoRA of which each group of rows has its own.

    low_rank: down [groups, R, in], up [groups, R, out], zeros where a group has less.
    """

    def __init__(self, base: Linear, low_rank: LowRank, groups: Groups) -> None:
        super().__init__(base, low_rank)
        self._groups = groups

    def plain_weight(self) -> Tensor:
        """Rows have no weights in common: raises TypeError."""
        raise TypeError("each group of rows has weights of its own")

    def _delta(self, hidden: Tensor) -> Tensor:
        rows = self._groups.spread(hidden)
        low = torch.bmm(rows, self.down.transpose(1, 2))
        return self._groups.gathered(torch.bmm(low, self.up), len(hidden))


def with_modules(module: ModuleT, others: Mapping[str, nn.Module]) -> ModuleT:
    """A copy of a module tree that shares everything but the modules named by their paths."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    inner: dict[str, dict[str, nn.Module]] = {}
    for path, other in others.items():
        name, _, rest = path.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = other
        else:
            made._modules[name] = other
    for name, below in inner.items():
        child = made._modules[name]
        assert child is not None  # noqa: S101 - for mypy: the paths are of modules
        made._modules[name] = with_modules(child, below)
    return made


def linear_at(module: nn.Module, path: str) -> Linear:
    """The linear layer of this path."""
    layer = module.get_submodule(path)
    if not isinstance(layer, Linear):
        raise TypeError(f"{path} is no linear layer that LoRA can stand beside")
    return layer
