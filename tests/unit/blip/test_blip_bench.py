"""The benchmark runs, without Pillow too, and prints what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from worker.blip import bench

WITHOUT_PILLOW = (
    "import sys; sys.modules['PIL'] = None; from worker.blip import bench; bench.main()"
)


def test_given_a_checkpoint_and_no_pillow_when_measured_then_json_has_the_rates_and_their_ratio(
    tiny: Path,
) -> None:
    options = ["--batch", "2", "--beams", "2", "--tokens", "4", "--rounds", "2", "--device", "cpu"]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_PILLOW, "--model", str(tiny), *options, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(run.stdout)
    assert result["same_token_ids"] == 1.0
    assert result["ratio"] == pytest.approx(
        result["images_per_s"] / result["transformers_images_per_s"]
    )
    assert 0 < result["gemm_fraction"] < 1


def test_given_no_json_when_measured_then_one_sentence_is_printed(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = bench.Result("tiny", "cpu", "float32", 1, 3, 2, 1, 30.0, 12.0, 2.5, 0.5, 1.0)
    monkeypatch.setattr(bench, "compare", lambda *_: result)
    bench.main(["--model", str(tiny), "--batch", "1", "--tokens", "2", "--rounds", "1"])
    assert capsys.readouterr().out == (
        "tiny, float32 on cpu, batch 1, 3 beams, 2 tokens: 30.00 images/s, transformers 12.00, "
        "ratio 2.50, 50% of the GEMM rate, 100% of captions the same\n"
    )
