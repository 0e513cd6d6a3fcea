"""The FLOP formula and the GEMM peak that benchmarks divide by."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.blip_checkpoints import TINY
from worker.blip.bench.flops import caption_flops, row_flops
from worker.blip.bench.gemm_peak import gemm_peak, gemm_shapes
from worker.blip.bench.noise import coarse_noise
from worker.blip.bench.reference import Reference
from worker.blip.config import TextConfig, VisionConfig, text_config, vision_config
from worker.blip.linear import packs
from worker.blip.options import CaptionOptions

CPU = torch.device("cpu")
IMAGES, TOKENS = 2, 6


def shapes(folder: Path) -> tuple[VisionConfig, TextConfig]:
    config = json.loads((folder / "config.json").read_text())
    return vision_config(config), text_config(config)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_formula_counts_what_torch_counts_in_transformers_minus_what_is_done_per_beam(
    tiny: Path, beams: int
) -> None:
    """transformers projects the image and runs the first step once for each beam."""
    vision, text = shapes(tiny)
    size = vision.image_size
    reference = Reference(tiny, torch.float32, CPU)
    options = CaptionOptions(num_beams=beams, min_new_tokens=TOKENS, max_new_tokens=TOKENS)
    pixel_values = coarse_noise(IMAGES, size).float() / 255
    with FlopCounterMode(display=False) as counter:
        token_ids = reference.caption(pixel_values, options)
    assert [len(row) for row in token_ids] == [TOKENS] * IMAGES

    flops = caption_flops(vision, text, beams, TOKENS)
    per_beam = (beams - 1) * (flops.cross + row_flops(vision, text, 0))
    assert counter.get_total_flops() == IMAGES * (flops.total + per_beam)


def test_blip_base_takes_the_arithmetic_that_is_known_of_it() -> None:
    """111 GFLOP for ViT-B/16 at 384, 16 for all keys and values, 3 for 12 greedy tokens."""
    vision = VisionConfig(768, 3072, 12, 12, (384, 384), 16, 1e-5)
    text = TextConfig(768, 768, 3072, 12, 12, 30524, 512, 1e-12)
    flops = caption_flops(vision, text, beams=1, new_tokens=12)
    assert flops.vision == pytest.approx(111e9, rel=0.01)
    assert flops.cross == pytest.approx(16.3e9, rel=0.01)
    assert flops.decode == pytest.approx(3.2e9, rel=0.01)
    assert flops.total == flops.vision + flops.cross + flops.decode


def test_the_peak_is_sought_among_the_vits_own_shapes(tiny: Path) -> None:
    vision, _ = shapes(tiny)
    tokens, width = (TINY.image_size // TINY.patch_size) ** 2 + 1, TINY.vision_width
    assert gemm_shapes(vision, batch=3) == {
        "qkv": (3 * tokens, width, 3 * width),
        "projection": (3 * tokens, width, width),
        "fc1": (3 * tokens, width, 4 * width),
        "fc2": (3 * tokens, 4 * width, width),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_peak_is_the_fastest_of_them_plain_or_packed(tiny: Path, dtype: torch.dtype) -> None:
    vision, _ = shapes(tiny)
    peak = gemm_peak(vision, 2, dtype, CPU, seconds=0.001)
    assert peak.rate > 0
    name, way = peak.name.split(", ")
    assert name in gemm_shapes(vision, 2)
    assert way == "linear" or packs(dtype)
