from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.blip_checkpoints import BOTH, TINY, write_random_checkpoint
from tests.finetuned import captions, write_pairs


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_accelerator_yet() -> None:
    """accelerate keeps its precision for the life of a process; a run is one."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of a few hundred kilobytes with both tasks. Tests read it only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    return write_random_checkpoint(folder, TINY, BOTH, seed=2, spread=3.0)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 12 images, each with a caption of its own."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), captions(12))
