"""How many images this worker puts on its device at once: set by hand, or measured before any work.

What was measured is kept in a file of CAPTIONQ_HOME and holds for the same checkpoints, device and
libraries, as long as as much memory is free.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worker.blip.hardware import hardware
from worker.blip.memory import PeakMemory, available_bytes
from worker.blip.sizing import Bounds, Trial, choose, describe, find
from worker.models import Models
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def settle_batch(settings: WorkerSettings, models: Models) -> int:
    """Warm the models up and return the largest batch they are to be given.

    Raises OutOfMemory when a batch set by hand, or a single image, does not fit.
    """
    batch = _settled(settings, models)
    if settings.warmup:
        models.capture(batch)
    return batch


def _settled(settings: WorkerSettings, models: Models) -> int:
    if settings.max_batch != "auto":
        if settings.warmup:
            models.warm_up(settings.max_batch)
        return settings.max_batch
    device = models.device
    memory = PeakMemory(device)
    free_bytes = available_bytes(device)
    share = None if free_bytes is None else int(settings.memory_fraction * free_bytes)
    bounds = Bounds(memory_bytes=share)
    remembered = Remembered(settings.home / "batch-size", _circumstances(models, settings))
    if (trial := remembered.load()) is not None and trial.fits(bounds):
        models.warm_up(trial.batch)
        log.info("batch size %d, as measured before (%s)", trial.batch, remembered.path)
        return trial.batch
    least_runs = 2 if device.startswith("cuda") else 1
    trials = find(models.warm_up, memory, bounds, least_runs=least_runs)
    chosen = choose(trials, bounds)
    log.info(describe(trials, chosen, bounds))
    if not chosen.fits(bounds):
        log.warning("even one image takes more than CAPTIONQ_MEMORY_FRACTION of the free memory")
    remembered.save(chosen)
    return chosen.batch


class Remembered:
    """The chosen trial of earlier starts under the same circumstances, in a file of its own.

    A file that cannot be read or written costs a measurement, and nothing else.
    """

    def __init__(self, folder: Path, circumstances: Mapping[str, Any]) -> None:
        self._circumstances = dict(circumstances)
        text = json.dumps(self._circumstances, sort_keys=True)
        self.path = folder / f"{sha256(text.encode()).hexdigest()[:16]}.json"

    def load(self) -> Trial | None:
        """The trial, if there is one for exactly these circumstances."""
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
            if record["circumstances"] != self._circumstances:
                return None
            trial = Trial(**record["chosen"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as exc:
            log.warning("cannot use %s: %s", self.path, exc)
            return None
        return trial if type(trial.batch) is int and trial.batch >= 1 else None

    def save(self, chosen: Trial) -> None:
        """Keep a trial; whoever reads meanwhile sees the old file or the new one."""
        record = {"circumstances": self._circumstances, "chosen": asdict(chosen)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.path.parent, suffix=".new", encoding="utf-8", delete=False
            ) as file:
                json.dump(record, file, indent=2)
            Path(file.name).replace(self.path)
        except OSError as exc:
            log.warning("the batch size will be measured again at the next start: %s", exc)


def _circumstances(models: Models, settings: WorkerSettings) -> dict[str, Any]:
    """What a measurement depends on, ready for JSON."""
    return {
        "models": sorted(
            [task, name, models.facts(task).revision, models.facts(task).dtype]
            for task, name in models.served
        ),
        "hardware": asdict(hardware(models.device)),
        "memory_fraction": settings.memory_fraction,
        "captionq": version("captionq"),
    }
