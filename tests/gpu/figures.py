"""The figures of a CUDA machine: rates against their goals, and parity with transformers."""

from dataclasses import asdict, replace
from typing import Any

import torch

from worker.blip.bench import Case, measure
from worker.blip.bench.compare import ours
from worker.blip.bench.noise import coarse_noise
from worker.blip.bench.reference import Reference
from worker.blip.engine import Engine

GOALS = {
    1: {"images_per_s": 1_500.0, "ratio": 8.0},  # greedy; the rate on an H200-class device
    5: {"ratio": 12.0},
}
"""By number of beams: what batch 64 in bfloat16 is to reach on blip-image-captioning-base."""


def figures(case: Case) -> dict[str, Any]:
    """Every case of GOALS with its goals and whether it reached them, ready for JSON."""
    found = {}
    for beams, goals in GOALS.items():
        result = asdict(measure(replace(case, beams=beams)))
        reached = {name: result[name] >= goal for name, goal in goals.items()}
        found[f"beams {beams}"] = result | {"goals": goals, "reached": reached}
    return found


def differing(case: Case) -> list[int]:
    """The images whose float32 captions are not transformers', token for token.

    TF32 is switched off: cuDNN uses it for convolutions, and it is not float32.
    """
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        engine = Engine.load(case.folder, device=case.device, tasks=["caption"])
        images = coarse_noise(case.batch, engine.image_size)
        reference = Reference(case.folder, torch.float32, torch.device(engine.device))
        theirs = reference.caption(engine.normalised(images), case.options)
        pairs = zip(ours(engine, images, case), theirs, strict=True)
        return [index for index, (a, b) in enumerate(pairs) if a != b]
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
