"""The benchmark runs, and prints what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from worker.blip import bench


def test_given_a_checkpoint_when_measured_then_json_has_both_rates_and_their_ratio(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tiny), "--batch", "2", "--beams", "2", "--tokens", "4"]
    assert bench.main([*arguments, "--rounds", "2", "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["same_token_ids"] == 1.0
    assert result["ratio"] == pytest.approx(
        result["images_per_s"] / result["transformers_images_per_s"]
    )
    assert 0 < result["gemm_fraction"] < 1


def test_given_no_pillow_when_run_then_it_measures_and_prints_one_sentence(tiny: Path) -> None:
    program = "import sys; sys.modules['PIL'] = None; from worker.blip import bench; bench.main()"
    options = ["--model", str(tiny), "--batch", "1", "--tokens", "2", "--rounds", "1"]
    run = subprocess.run(
        [sys.executable, "-c", program, *options, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{tiny}, float32 on cpu, batch 1, 3 beams, 2 tokens" in run.stdout
    assert "ratio" in run.stdout
