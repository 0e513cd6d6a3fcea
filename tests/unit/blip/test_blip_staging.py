"""Host memory that images travel from: what arrives is theirs, however often it is used."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worker.blip.images import stacked
from worker.blip.staging import Staging

CPU = torch.device("cpu")


def pixels(count: int, height: int = 16, width: int = 24) -> Sequence[NDArray[np.uint8]]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("inference", [True, False])
def test_given_batches_of_any_size_one_after_the_other_then_each_arrives_and_stays_as_it_was(
    inference: bool,
) -> None:
    staging = Staging(CPU)
    batches = [pixels(3), pixels(1), pixels(5, 32, 16), pixels(2)]
    with torch.inference_mode(inference):
        staging.stack(pixels(4))
    arrived = [staging.stack(batch) for batch in batches]
    for batch, tensor in zip(batches, arrived, strict=True):
        assert tensor.dtype == torch.uint8
        assert tensor.is_contiguous()
        assert torch.equal(tensor, stacked(batch))


def test_given_batches_no_larger_than_before_then_their_memory_is_used_again() -> None:
    staging = Staging(CPU)
    staging.stack(pixels(5))
    place = staging._buffer.data_ptr()
    staging.stack(pixels(2))
    staging.stack(pixels(5))
    assert staging._buffer.data_ptr() == place


def test_given_a_device_that_still_reads_then_its_memory_is_left_alone_until_it_has() -> None:
    staging = Staging(CPU)
    first = pixels(2)
    staging.stack(first)
    seen: list[Any] = []

    class Event:
        def synchronize(self) -> None:
            seen.append(staging._buffer.numpy().copy())

    staging._fetched = Event()
    staging.stack(pixels(1))
    assert np.array_equal(seen[0], np.stack(first).ravel())
