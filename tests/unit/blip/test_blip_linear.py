"""Linear layers and attention in every form are the plain ones, to rounding."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from worker.blip import softmax_attention
from worker.blip.linear import Linear, packs

FORMS: dict[str, tuple[Callable[[Linear], object], float]] = {
    "plain": (lambda layer: layer, 1e-6),
    "packed": (Linear.pack, 1e-6),
    "int8": (Linear.quantise, 0.02),
}
DTYPES = {torch.float32: 1e-6, torch.bfloat16: 0.01}


def layer_of(dtype: torch.dtype) -> Linear:
    generator = torch.Generator().manual_seed(0)
    layer = Linear(96, 40)
    layer.weight.data = torch.randn(40, 96, generator=generator).mul(0.05).to(dtype)
    layer.bias.data = torch.randn(40, generator=generator).to(dtype)
    return layer.requires_grad_(False)


def distance(found: Tensor, expected: Tensor) -> float:
    """Mean difference over mean magnitude."""
    return float((found.float() - expected.float()).abs().mean() / expected.float().abs().mean())


@pytest.mark.parametrize("rows", [(1,), (7,), (2, 33)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_given_a_form_of_the_weights_then_products_gelu_and_sums_are_the_plain_ones(
    form: str, dtype: torch.dtype, rows: tuple[int, ...]
) -> None:
    prepare, tolerance = FORMS[form]
    tolerance = max(tolerance, DTYPES[dtype])
    layer = layer_of(dtype)
    weight, bias = layer.weight.clone(), layer.bias.clone()
    prepare(layer)
    hidden = torch.randn(*rows, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    residual = torch.randn(*rows, 40, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.inference_mode():
        expected = functional.linear(hidden.float(), weight.float(), bias.float())
        assert layer(hidden).shape == expected.shape
        assert layer(hidden).dtype == dtype
        assert distance(layer(hidden), expected) < tolerance
        assert distance(layer.gelu(hidden), functional.gelu(expected)) < tolerance
        assert distance(layer.add(hidden, residual), residual.float() + expected) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_given_a_form_of_the_weights_when_plain_ones_are_asked_for_then_they_come_back(
    form: str, dtype: torch.dtype
) -> None:
    layer = layer_of(dtype)
    weight = layer.weight.clone()
    FORMS[form][0](layer)
    found = layer.plain_weight()
    if form == "int8":
        assert distance(found, weight) < 0.02
    else:
        assert found.dtype == dtype
        assert found.equal(weight)


def test_given_packed_weights_then_the_plain_ones_are_gone() -> None:
    layer = layer_of(torch.float32)
    layer.pack()
    assert packs(torch.float32)
    assert not hasattr(layer, "weight")


def test_given_a_type_that_onednn_does_not_take_then_the_layer_stays_as_it_is() -> None:
    layer = layer_of(torch.float64)
    layer.pack()
    hidden = torch.ones(1, 96, dtype=torch.float64)
    assert layer(hidden).equal(functional.linear(hidden, layer.weight, layer.bias))


def test_given_zeros_alone_then_an_int8_layer_answers_with_its_bias() -> None:
    layer = layer_of(torch.float32)
    layer.quantise()
    assert layer(torch.zeros(3, 96)).equal(layer.bias.expand(3, -1))


KERNELS = [softmax_attention._plain, softmax_attention._grouped, softmax_attention.attend]


@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("queries", [1, 5, 70])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_given_any_kernel_then_attention_is_the_textbooks(
    kernel: Callable[..., Tensor], dtype: torch.dtype, queries: int, masked: bool
) -> None:
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(2, 3, queries, 16, generator=generator).to(dtype)
    key, value = torch.randn(2, 2, 3, 81, 16, generator=generator).to(dtype)
    mask = None
    if masked:
        mask = torch.rand(2, 1, queries, 81, generator=generator) < 0.5
        mask[..., 0] = True
    scores = query.float() @ key.float().transpose(-1, -2) / 4.0
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    expected = (scores.softmax(-1) @ value.float()).transpose(1, 2).flatten(2)
    found = kernel(query, key, value, mask)
    assert found.shape == (2, queries, 48)
    assert distance(found, expected) < DTYPES[dtype]
