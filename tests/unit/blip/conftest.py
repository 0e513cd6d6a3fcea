import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from tests.blip_checkpoints import BASE, BOTH, SHALLOW, TINY, write_random_checkpoint
from worker.blip import Engine


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two torch processes with a thread per core each wait for one another more than they work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a few hundred kilobytes with both tasks. Tests read it only."""
    folder = tmp_path_factory.mktemp("tiny")
    return write_random_checkpoint(folder, TINY, BOTH, seed=2, spread=3.0, end_bias=3.0)


@pytest.fixture(scope="session")
def tiny_engine(tiny: Path) -> Engine:
    return Engine.load(tiny)


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published widths and head counts, two layers, both tasks."""
    folder = tmp_path_factory.mktemp("shallow")
    return write_random_checkpoint(folder, SHALLOW, BOTH, seed=3, spread=4.0, end_bias=6.0)


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """BLIP-base at its published size with both tasks: 1.4 GB, made once, in memory if it fits."""
    memory = Path("/dev/shm")
    fits = memory.is_dir() and shutil.disk_usage(memory).free > 4_000_000_000
    with TemporaryDirectory(dir=memory if fits else None) as name:
        folder = Path(name)
        write_random_checkpoint(folder, BASE, BOTH, spread=2.0, end_bias=4.0)
        # With a revision on record nobody hashes 1.4 GB to name one.
        (folder / "source.json").write_text('{"model_id": "base", "revision": "random"}')
        yield folder


@pytest.fixture
def copy_of_tiny(tiny: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
