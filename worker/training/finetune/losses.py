"""The losses of a run, step by step: JSON Lines, and TensorBoard's events beside them."""

import json
from pathlib import Path
from typing import Any

from worker.training.finetune.folder import LOSSES, write_whole

EVENTS = "tensorboard"


class Losses:
    """A log that goes on from `step`: what it holds of later steps, which are made again, goes."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / LOSSES
        kept = b""
        if self._path.exists():
            whole = [
                line for line in self._path.read_bytes().splitlines(True) if line[-1:] == b"\n"
            ]
            kept = b"".join(line for line in whole if json.loads(line)["step"] <= step)
        write_whole(self._path, kept)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = _writer(folder / EVENTS, step)

    def add(self, step: int, **figures: float) -> None:
        """Figures after `step` steps."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        for name, figure in figures.items():
            if self._events is not None:
                self._events.add_scalar(name, figure, step)

    def close(self) -> None:
        """Write what is left."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _writer(folder: Path, step: int) -> Any | None:
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
