"""How much of a device is in use."""

import pytest
import torch

from worker.blip.device_use import DeviceUse, device_use


def test_given_a_cpu_there_is_nothing_to_say() -> None:
    assert device_use("cpu") is None


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that torch would tell of."""
    answers = {"memory_allocated": 3, "memory_reserved": 5, "mem_get_info": (70, 80)}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: 40)


@pytest.mark.usefixtures("cuda")
def test_given_a_card_its_memory_is_in_bytes_and_its_use_a_share() -> None:
    assert device_use("cuda:0") == DeviceUse(3, 5, 70, 80, 0.4)


@pytest.mark.usefixtures("cuda")
def test_given_no_library_of_the_driver_its_use_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(_: str) -> int:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    found = device_use("cuda:0")
    assert found is not None
    assert found.utilization is None
