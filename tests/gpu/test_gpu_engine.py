"""BLIP-base at full size on a CUDA device: `python -m pytest tests/gpu` prints the figures."""

import json

import pytest
import torch

from tests.blip_checkpoints import BASE, write_random_checkpoint
from tests.gpu.figures import GOALS, differing, figures
from worker.blip import Engine
from worker.blip.bench import Case
from worker.blip.bench.noise import coarse_noise
from worker.blip.explanation import Method

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
    pytest.mark.timeout(1_200),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = write_random_checkpoint(tmp_path_factory.mktemp("base"), BASE, spread=2.0)
    return Case("base, random weights", folder, "cuda", "bfloat16", "bfloat16", batch=64, rounds=5)


@pytest.mark.parametrize("beams", GOALS)
def test_float32_captions_are_those_of_transformers(case: Case, beams: int) -> None:
    one = Case("base", case.folder, "cuda", batch=16, beams=beams)
    assert differing(one) == []


@pytest.mark.parametrize("method", ["attention", "rollout", "gradcam"])
def test_float32_explanations_are_those_of_a_cpu(case: Case, method: Method) -> None:
    texts, images = [["a b c d"], ["e f"]], coarse_noise(2, (384, 384))
    maps = [
        [one.maps for row in engine.explain(images, texts, method=method) for one in row]
        for engine in (Engine.load(case.folder, device) for device in ("cuda", "cpu"))
    ]
    for ours, theirs in zip(*maps, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_the_figures_are_printed(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(case)
    with capsys.disabled():
        print(f"\n{json.dumps(found, indent=2)}")
    for result in found.values():
        assert result["images_per_s"] > 0
        assert 0 < result["gemm_fraction"] < 1
