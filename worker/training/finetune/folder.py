"""The folder of a run while it trains, beside its output: what it is, how far it is, its losses.

Everything in it is written whole or not at all, so that a run may be ended anywhere, by anything.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RUN, STATE, LOSSES, BEST = "run.json", "state.pt", "losses.jsonl", "best"


@dataclass
class Standing:
    """How far a run is. step: how many are done. seconds: spent in training, in all processes that
    it took one after another. best: the lowest validation loss, best_step: after how many steps.
    stale: validations since. peak_bytes: the most memory so far."""

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0


class RunFolder:
    """`DIR.training`, for an output DIR. `begin` makes it."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(output.name + ".training")
        self._lock: int | None = None

    def begin(self, run: Mapping[str, Any]) -> None:
        """Make the folder for this run, or find that it is this run's.

        run: everything that decides what is trained, as JSON.

        Raises:
            ValueError: it keeps the state of another run, and what differs; or a process is at it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process trains in {self.path} now") from None
        except OSError:
            pass  # a file system without locks
        known = self.path / RUN
        if not (self.path / STATE).exists():
            write_whole(known, json.dumps(run, indent=2, ensure_ascii=False).encode())
            return
        before = json.loads(known.read_text(encoding="utf-8"))
        differ = [
            f"{name} was {before.get(name)!r} and is {run.get(name)!r}"
            for name in dict.fromkeys([*before, *run])
            if before.get(name) != run.get(name)
        ]
        if differ:
            raise ValueError(
                f"{self.path} holds another run: {'; '.join(differ)}. Go on with what it was begun "
                f"with, name another output, or remove that folder"
            )

    def end(self) -> None:
        """Leave the folder to others, as the end of the process does."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save(self, standing: Standing, tensors: Mapping[str, Tensor], optimizer: Any) -> None:
        """Keep what the run goes on from; older best tensors go once this is kept."""
        part = self.path / f"{STATE}.part"
        with part.open("wb") as file:
            torch.save(
                {"standing": asdict(standing), "tensors": dict(tensors), "optimizer": optimizer},
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path / STATE)
        for path in self.path.glob(f"{BEST}-*"):
            if path != self._best(standing.best_step):
                path.unlink()

    def load(self) -> tuple[Standing, dict[str, Tensor], Any] | None:
        """What was kept; None at the beginning."""
        path = self.path / STATE
        if not path.exists():
            return None
        kept = torch.load(path, map_location="cpu", weights_only=True)
        return Standing(**kept["standing"]), kept["tensors"], kept["optimizer"]

    def keep_best(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors after so many steps."""
        part = self.path / f"{BEST}.part"
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, part)
        synced(part)
        part.replace(self._best(step))

    def best(self, step: int) -> dict[str, Tensor]:
        """The tensors after so many steps, which were the best."""
        return load_file(self._best(step))

    def clear(self) -> None:
        """Remove what only an unfinished run needs; losses stay."""
        for path in [self.path / STATE, *self.path.glob(f"{BEST}*"), *self.path.glob("*.part")]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _best(self, step: int | None) -> Path:
        return self.path / f"{BEST}-{step}.safetensors"


def synced(path: Path) -> None:
    """Have the disk hold what was written into a file, or which files a folder has."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there whole, or as it was."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
