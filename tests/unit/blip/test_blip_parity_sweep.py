"""The full sweep against transformers, at published widths: `make parity`, not `make test`.

What test_blip_parity.py does with few images and cases, here is done with all of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from tests.blip_checkpoints import SHALLOW, noise_images, write_random_checkpoint
from tests.blip_parity import BEAMS, GREEDY, OTHERS, Listed, Side, named
from worker.blip.random_checkpoint import LARGE

pytestmark = [pytest.mark.parity, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", autouse=True)
def all_threads() -> Iterator[None]:
    """Nothing else runs beside this."""
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shallow_64(tmp_path_factory: pytest.TempPathFactory) -> Side:
    """Livelier than the other shallow checkpoint: 58 of 64 captions are unlike in every case."""
    folder = tmp_path_factory.mktemp("shallow_64")
    write_random_checkpoint(folder, SHALLOW, ("caption",), seed=7, spread=5.0, end_bias=5.0)
    return Side(folder, noise_images(64))


@pytest.fixture(scope="module")
def base_8(base: Path) -> Side:
    return Side(base, noise_images(8))


@pytest.fixture(scope="module")
def large_3() -> Iterator[Side]:
    with TemporaryDirectory() as name:
        folder = write_random_checkpoint(Path(name), LARGE, spread=2.0, end_bias=4.0)
        yield Side(folder, noise_images(3))


@pytest.mark.parametrize("names", [*GREEDY, *BEAMS, *OTHERS], ids=named)
def test_given_64_images_at_full_width_and_two_layers_then_captions_are_transformers(
    shallow_64: Side, names: dict[str, Any], record_property: Listed
) -> None:
    limits = {"max_new_tokens": 12, "min_new_tokens": 5}
    shallow_64.assert_same_captions(record_property, 0.9, **limits | names)


@pytest.mark.parametrize("names", [*GREEDY, *BEAMS, *OTHERS], ids=named)
def test_given_8_images_at_full_depth_then_captions_are_transformers(
    base_8: Side, names: dict[str, Any], record_property: Listed
) -> None:
    limits = {"max_new_tokens": 8, "min_new_tokens": 5}
    base_8.assert_same_captions(record_property, 0.9, **limits | names)


@pytest.mark.parametrize("names", [GREEDY[0], BEAMS[4], BEAMS[8], OTHERS[0]], ids=named)
def test_given_the_shape_of_blip_large_then_captions_are_transformers(
    large_3: Side, names: dict[str, Any], record_property: Listed
) -> None:
    limits = {"max_new_tokens": 6, "min_new_tokens": 4}
    large_3.assert_same_captions(record_property, 0.9, **limits | names)
