"""Peak memory of captioning one batch, measured in a process that does nothing else."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from worker.blip.bench.noise import coarse_noise
from worker.blip.engine import Engine
from worker.blip.memory import PeakMemory
from worker.blip.options import CaptionOptions


@dataclass(frozen=True)
class Peak:
    """total_bytes: the most held at once. batch_bytes: how much of that the batch took.

    On a CPU the total is the process's resident set: interpreter, torch's libraries, weights and
    batch. On CUDA it is what torch's allocator handed out: weights and batch, without the context.
    The rest, total minus batch, was held when the model was loaded and had captioned one image
    with one token, so that every weight had been read.
    """

    total_bytes: int
    batch_bytes: int


def caption_peak(
    folder: Path, device: str, dtype: str, options: CaptionOptions, batch: int
) -> Peak:
    """Load the engine in a fresh process, and caption a batch there."""
    arguments = (folder, device, dtype, options, batch, torch.get_num_threads())
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(_peak_here, *arguments).result()


def _peak_here(
    folder: Path, device: str, dtype: str, options: CaptionOptions, batch: int, threads: int
) -> Peak:
    torch.set_num_threads(threads)
    engine = Engine.load(folder, device=device, dtype=dtype, tasks=["caption"])
    images = coarse_noise(batch, engine.image_size)
    engine.caption(images[:1], num_beams=1, max_new_tokens=1)
    memory = PeakMemory(engine.device)
    engine.caption(images, options)
    total = memory.peak_bytes()
    return Peak(total, max(0, total - memory.held_bytes))
