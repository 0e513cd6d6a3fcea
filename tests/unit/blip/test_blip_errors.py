"""torch's memory and device errors get names of their own, once."""

import pytest
import torch

from worker.blip import DeviceLost, OutOfMemory
from worker.blip.errors import device_errors

CPU = torch.device("cpu")


def accelerator_error(code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError("CUDA error")
    error.error_code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (torch.OutOfMemoryError("tried to allocate 2 GiB"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (accelerator_error(2), OutOfMemory),
        (accelerator_error(700), DeviceLost),
        (accelerator_error(719), DeviceLost),
    ],
    ids=repr,
)
def test_given_a_foreign_error_when_it_passes_then_it_has_our_name_and_its_cause(
    raised: Exception, named: type[Exception]
) -> None:
    with pytest.raises(named) as caught, device_errors(CPU):
        raise raised
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [RuntimeError("shapes"), ValueError("option"), KeyError("x")])
def test_given_another_error_when_it_passes_then_it_is_left_alone(raised: Exception) -> None:
    with pytest.raises(type(raised)) as caught, device_errors(CPU):
        raise raised
    assert caught.value is raised
