"""`captionq-worker bench service`: a whole service, measured small."""

import json

import pytest
from typer.testing import CliRunner

from worker import cli


def test_given_a_small_load_when_a_service_is_measured_then_its_figures_are_printed() -> None:
    words = ["bench", "service", "--engine", "timed", "--intake", "null", "--images", "400"]
    words += ["--max-batch", "8", "--seconds", "1", "--chunk", "16", "--json"]
    result = CliRunner().invoke(cli.cli, words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    full_batches_per_s = 8 / 0.0232
    assert found["engine_ratio"] == pytest.approx(found["images_per_s"] / full_batches_per_s)
    assert 0 < found["batch_fill"] <= 1
    assert found["device_occupancy"] > 0
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert 50 < found["redis_bytes_per_image"] < 1_000
    assert found["worker_mib"] > 50
