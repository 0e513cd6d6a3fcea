"""LoRA beside a linear layer is the layer with merged weights; groups of rows have their own."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from worker.blip.linear import Linear
from worker.blip.lora import AdaptedLinear, GroupedLinear, Groups, LowRank, stacked, with_modules

CPU = torch.device("cpu")


def layer(form: str) -> Linear:
    torch.manual_seed(0)
    made = Linear(24, 16).requires_grad_(False)
    made.weight.normal_()
    made.bias.normal_()
    if form == "blocked":
        made.pack()
    elif form == "int8":
        made.quantise()
    return made


def low_rank(rank: int, seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    down, up = (torch.randn(rank, size, generator=generator) for size in (24, 16))
    return LowRank(down, up)


def expected(base: Linear, low: LowRank | None, rows: Tensor) -> Tensor:
    return base(rows) if low is None else base(rows) + rows @ low.down.t() @ low.up


@pytest.mark.parametrize("form", ["plain", "blocked", "int8"])
def test_given_lora_then_each_form_of_the_product_has_it(form: str) -> None:
    base, low = layer(form), low_rank(3, 1)
    adapted = AdaptedLinear(base, low)
    hidden, residual = torch.randn(4, 5, 24), torch.randn(4, 5, 16)
    right = expected(base, low, hidden)
    assert torch.allclose(adapted(hidden), right, atol=1e-4)
    assert torch.allclose(adapted.gelu(hidden), functional.gelu(right), atol=1e-4)
    before = residual.clone()
    assert torch.allclose(adapted.add(hidden, residual), right + residual, atol=1e-4)
    assert torch.equal(residual, before)
    merged = base.plain_weight() + low.up.t() @ low.down
    assert torch.allclose(adapted.plain_weight(), merged, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize(
    "sizes", [[2, 2, 2], [1, 4, 2], [5, 1], [3]], ids=["alike", "several", "one and many", "one"]
)
def test_given_groups_of_rows_then_each_has_its_own_lora(sizes: Sequence[int], tokens: int) -> None:
    base = layer("blocked")
    parts = [low_rank(2, 1), None, low_rank(5, 2)][-len(sizes) :]
    grouped = GroupedLinear(base, stacked(parts), Groups(sizes, CPU))
    hidden, residual = torch.randn(sum(sizes), tokens, 24), torch.randn(sum(sizes), tokens, 16)
    rows = zip(parts, hidden.split(list(sizes)), strict=True)
    right = torch.cat([expected(base, part, some) for part, some in rows])
    assert torch.allclose(grouped(hidden), right, atol=1e-4)
    assert torch.allclose(grouped.add(hidden, residual), right + residual, atol=1e-4)
    with pytest.raises(TypeError, match="weights of its own"):
        grouped.plain_weight()


def test_given_other_modules_then_the_copy_has_them_and_the_original_its_own() -> None:
    tree = torch.nn.Sequential(torch.nn.Sequential(layer("plain"), layer("plain")), layer("plain"))
    other = layer("blocked")
    made = with_modules(tree, {"0.1": other})
    assert made.get_submodule("0.1") is other
    assert tree.get_submodule("0.1") is not other
    assert made.get_submodule("0.0") is tree.get_submodule("0.0")
    assert made.get_submodule("1") is tree.get_submodule("1")
