"""The benchmark runs, and prints what it promises."""

import json
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


def test_given_no_json_when_measured_then_one_sentence_is_printed(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.main(["--model", str(tiny), "--batch", "1", "--tokens", "2", "--rounds", "1"])
    assert "ratio" in capsys.readouterr().out
