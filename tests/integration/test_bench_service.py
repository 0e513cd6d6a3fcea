"""`captionq-worker bench service`: a whole service, measured small."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker import cli
from worker.bench import processes
from worker.bench.processes import Worker


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
    assert found["idle_overhead_ms"] > 0
    assert found["messages_left"] > 0


def test_given_a_worker_that_ends_then_its_work_is_not_waited_for(tmp_path: Path) -> None:
    with (
        Worker("tests.no_such_module", tmp_path, {}) as worker,
        pytest.raises(RuntimeError, match=r"no more than 0 of 9:\n(.|\n)*no_such_module"),
    ):
        worker.wait_until_done(9)


def test_given_a_worker_that_does_nothing_any_more_then_its_work_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STALL_S", 0.2)
    (tmp_path / "counts").write_text("[1.0, 1, 5, 0.1]\n")
    with Worker("tests.sleeper", tmp_path, {}) as worker:
        monkeypatch.setattr(worker._process, "poll", lambda: None)
        assert worker.wait_until_done(5)[-1].images == 5
        with pytest.raises(RuntimeError, match="no more than 5 of 6"):
            worker.wait_until_done(6)
