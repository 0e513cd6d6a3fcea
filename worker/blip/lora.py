"""LoRA (Hu et al. 2021) beside weights that stay as they are: y = W x + b + scale B A x.

The product with W keeps its form (blocked for oneDNN, int8, bfloat16), and what is of low rank is
the residual that its epilogue adds. A model with LoRA is a copy of the module tree that shares all
its tensors with the original; only the modules that are named are others.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


class AdaptedLinear(Linear):
    """A linear layer and its LoRA.

    others: bool [B, 1, R], the ranks that a row has not; None where all have all.
    """

    def __init__(self, base: Linear, low_rank: LowRank, others: Tensor | None = None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self._base, self._others = base, others
        self.down, self.up = low_rank.down, low_rank.up

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, in] to [B, T, out]."""
        return self._base.add(hidden, torch.matmul(self._low(hidden), self.up))

    def gelu(self, hidden: Tensor) -> Tensor:
        """Exact GELU of the product: [B, T, in] to [B, T, out]."""
        activated: Tensor = functional.gelu(self(hidden))
        return activated

    def add(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """The product plus `residual` [B, T, out]."""
        low = self._low(hidden).flatten(0, -2)
        total = torch.addmm(residual.reshape(-1, self.out_features), low, self.up)
        return self._base.add(hidden, total.view(residual.shape))

    def plain_weight(self) -> Tensor:
        """The weights [out, in] with the LoRA of all rows merged, made anew in every call."""
        return self._base.plain_weight() + (self.up.t() @ self.down)

    def _low(self, hidden: Tensor) -> Tensor:
        low = functional.linear(hidden, self.down)
        # Filled, not multiplied: what another row's pack makes of this one may be infinite.
        return low if self._others is None else low.masked_fill_(self._others, 0)


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
