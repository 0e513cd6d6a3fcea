"""One measurement: our engine on a batch, and transformers' generate beside it.

Both caption the same images with the same fixed number of tokens, from pixels of the right size
(uint8 here, normalised floats there) to token ids on the host.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.blip.bench.flops import Flops, caption_flops
from worker.blip.bench.gemm_peak import gemm_peak
from worker.blip.bench.noise import coarse_noise
from worker.blip.bench.peak import caption_peak
from worker.blip.bench.reference import Reference
from worker.blip.bench.timing import medians
from worker.blip.config import VisionConfig, text_config, vision_config
from worker.blip.device import DTYPES
from worker.blip.engine import Engine
from worker.blip.hardware import Hardware, hardware
from worker.blip.options import CaptionOptions


@dataclass(frozen=True)
class Case:
    """What is measured. `tokens` are forced: every caption has that many.

    reference_dtype: of transformers' side; None leaves that side out.
    """

    model: str
    folder: Path
    device: str = "auto"
    dtype: str = "float32"
    reference_dtype: str | None = None
    batch: int = 16
    beams: int = 3
    tokens: int = 12
    rounds: int = 3

    @property
    def options(self) -> CaptionOptions:
        """The decoding options of both sides."""
        return CaptionOptions(
            num_beams=self.beams, min_new_tokens=self.tokens, max_new_tokens=self.tokens
        )


@dataclass(frozen=True)
class Stage:
    """A stage's time for the batch, and its rate by flops.py; 0 where no GEMM belongs to it."""

    ms: float
    tflops: float


@dataclass(frozen=True)
class Result:
    """What a case gave; times are medians over the rounds.

    tflops counts as flops.py says; gemm_fraction is its share of gemm_peak_tflops, the fastest of
    the ViT's own GEMM shapes at this batch and dtype. ratio is ours over transformers' rate,
    same_token_ids the share of captions that are equal; None without a reference.
    peak_memory_bytes and batch_memory_bytes are peak.py's total and batch.
    """

    model: str
    device: str
    dtype: str
    reference_dtype: str | None
    batch: int
    beams: int
    tokens: int
    rounds: int
    images_per_s: float
    transformers_images_per_s: float | None
    ratio: float | None
    same_token_ids: float | None
    tflops: float
    gemm_peak_tflops: float
    gemm_peak_of: str
    gemm_fraction: float
    stages: dict[str, Stage]
    peak_memory_bytes: int
    batch_memory_bytes: int
    hardware: Hardware


def measure(case: Case) -> Result:
    """Measure a case, after one call of each side to warm up.

    Raises CheckpointError, DeviceUnavailable, OutOfMemory, ValueError for a dtype that the device
    does not have.
    """
    peak = caption_peak(case.folder, case.device, case.dtype, case.options, case.batch)
    engine = Engine.load(case.folder, device=case.device, dtype=case.dtype, tasks=["caption"])
    device = torch.device(engine.device)
    images = coarse_noise(case.batch, engine.image_size)
    sides: dict[str, Callable[[], list[list[int]]]] = {"ours": lambda: ours(engine, images, case)}
    if case.reference_dtype is not None:
        reference = Reference(case.folder, DTYPES[case.reference_dtype], device)
        pixel_values = engine.normalised(images)
        sides["transformers"] = lambda: reference.caption(pixel_values, case.options)

    answers = {name: side() for name, side in sides.items()}
    seconds = medians(sides, case.rounds, device)
    vision, flops = _shapes(case)
    stages = _stages(engine, images, case, flops)
    best = gemm_peak(vision, case.batch, arithmetic(case.dtype), device)
    rate = flops.total * case.batch / seconds["ours"]
    theirs_s = seconds.get("transformers")
    return Result(
        model=case.model,
        device=engine.device,
        dtype=engine.dtype,
        reference_dtype=case.reference_dtype,
        batch=case.batch,
        beams=case.beams,
        tokens=case.tokens,
        rounds=case.rounds,
        images_per_s=case.batch / seconds["ours"],
        transformers_images_per_s=None if theirs_s is None else case.batch / theirs_s,
        ratio=None if theirs_s is None else theirs_s / seconds["ours"],
        same_token_ids=_agreement(answers),
        tflops=rate / 1e12,
        gemm_peak_tflops=best.rate / 1e12,
        gemm_peak_of=best.name,
        gemm_fraction=rate / best.rate,
        stages=stages,
        peak_memory_bytes=peak.total_bytes,
        batch_memory_bytes=peak.batch_bytes,
        hardware=hardware(device),
    )


def ours(engine: Engine, images: Tensor, case: Case) -> list[list[int]]:
    """The token ids of each image's best caption."""
    return [row[0].token_ids for row in engine.caption(images, case.options)]


def arithmetic(dtype: str) -> torch.dtype:
    """The floating-point type to compare a dtype with: itself, or float32 for integer weights."""
    named = DTYPES.get(dtype, torch.float32)
    return named if named.is_floating_point else torch.float32


def _stages(engine: Engine, images: Tensor, case: Case, flops: Flops) -> dict[str, Stage]:
    """Each stage by itself, through the engine's own calls.

    decode is what a call on encoded images takes beyond the projection; it includes the answer's
    way to the host and the tokenizer.
    """
    pixel_values = engine.normalised(images)
    encoded = engine.encode(pixel_values)
    calls: dict[str, Callable[[], Any]] = {
        "preprocess": lambda: engine.normalised(images),
        "vision": lambda: engine.encode(pixel_values),
        "cross": lambda: engine.project_images(encoded),
        "decode": lambda: engine.caption(encoded, case.options),
    }
    for call in calls.values():
        call()
    seconds = medians(calls, case.rounds, torch.device(engine.device))
    seconds["decode"] = max(1e-9, seconds["decode"] - seconds["cross"])
    work = {"vision": flops.vision, "cross": flops.cross, "decode": flops.decode}
    return {
        name: Stage(ms=1e3 * took, tflops=work.get(name, 0) * case.batch / took / 1e12)
        for name, took in seconds.items()
    }


def _shapes(case: Case) -> tuple[VisionConfig, Flops]:
    config = json.loads((case.folder / "config.json").read_text(encoding="utf-8"))
    vision, text = vision_config(config), text_config(config)
    return vision, caption_flops(vision, text, case.beams, case.tokens)


def _agreement(answers: dict[str, list[list[int]]]) -> float | None:
    if "transformers" not in answers:
        return None
    pairs = list(zip(answers["ours"], answers["transformers"], strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)
