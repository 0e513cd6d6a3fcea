"""A search keeps its state on the device: no step of it makes the host wait."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.blip.test_blip_rows import ONE_BATCH
from worker.blip import Engine
from worker.blip.search import search_for

CPU = torch.device("cpu")
# What asks the device for a number, or for a size that depends on numbers.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")


class NoWaiting(TorchDispatchMode):
    """Raises where an operation would make the host wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0].strip("_")
        if any(name.startswith(wait.strip("_")) for wait in WAITS):
            raise AssertionError(f"{func.name()} waits for the device")
        if name.startswith("index") and any(_picks(index) for index in args[1:2]):
            raise AssertionError(f"{func.name()} by a mask waits for the device")
        return func(*args, **(kwargs or {}))


def _picks(indices: Any) -> bool:
    several = indices if isinstance(indices, list | tuple) else ()
    return any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in several)


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), lambda x: x.nonzero()],
    ids=["a number", "a mask", "a truth", "places"],
)
def test_given_an_operation_that_waits_then_the_guard_sees_it(wait: Callable[[Any], Any]) -> None:
    values = torch.ones(3)
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        wait(values)


@pytest.mark.parametrize("beams", [1, 4])
def test_given_every_option_when_a_search_advances_then_the_host_never_waits(
    tiny_engine: Engine, beams: int
) -> None:
    tokenizer = tiny_engine._tokenizer
    rows = ONE_BATCH if beams == 1 else [row for row in ONE_BATCH if not row.do_sample]
    if beams > 1:
        rows = [replace(row, num_beams=beams) for row in rows]
    prompts = [tokenizer.prompt(row.prompt, row.prefix) for row in rows]
    search = search_for(rows, prompts, tokenizer, CPU)
    random = torch.Generator().manual_seed(0)
    logits = [
        torch.randn((len(rows), beams, tokenizer.vocab_size), generator=random) for _ in range(12)
    ]
    shapes = {name: value.shape for name, value in _state(search).items()}
    with NoWaiting():
        for step, scores in enumerate(logits):
            search.advance(step, scores)
        search.hypotheses()
    assert {name: value.shape for name, value in _state(search).items()} == shapes


def _state(search: Any) -> dict[str, torch.Tensor]:
    return {name: v for name, v in vars(search).items() if isinstance(v, torch.Tensor)}
