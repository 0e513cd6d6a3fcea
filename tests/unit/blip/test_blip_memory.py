"""Memory: the peak of this process, and what control groups leave."""

from pathlib import Path

import pytest
import torch

from worker.blip.memory import PeakMemory, available_bytes, cgroup_bytes

CPU = torch.device("cpu")
MB = 2**20


def test_given_a_tensor_that_came_and_went_its_bytes_are_in_the_peak_until_it_is_reset() -> None:
    memory = PeakMemory(CPU)
    torch.ones(100 * MB, dtype=torch.uint8)
    assert 95 * MB < memory.taken_bytes() < 130 * MB
    assert memory.peak_bytes() == memory.held_bytes + memory.taken_bytes()
    memory.release()
    memory.reset()
    assert memory.taken_bytes() < 30 * MB


def test_what_is_available_is_no_more_than_the_machine_has() -> None:
    available = available_bytes(CPU)
    assert available is not None
    assert 0 < available < 2**50


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        pytest.param("0::/", {"memory.max": "max", "memory.current": "5"}, None, id="v2: no limit"),
        pytest.param("0::/", {"memory.max": "900", "memory.current": "100"}, 800, id="v2"),
        pytest.param(
            "0::/",
            {
                "memory.max": "900",
                "memory.current": "100",
                "memory.stat": "anon 9\ninactive_file 7",
            },
            807,
            id="v2: page cache can be dropped",
        ),
        pytest.param(
            "0::/a/b",
            {
                "a/memory.max": "300",
                "a/memory.current": "100",
                "a/b/memory.max": "max",
                "a/b/memory.current": "9",
            },
            200,
            id="v2: an outer group has the limit",
        ),
        pytest.param(
            "0::/of/the/host", {"memory.max": "50", "memory.current": "60"}, 0, id="v2: container"
        ),
        pytest.param(
            "4:cpu,memory:/a\n0::/",
            {
                "memory/a/memory.limit_in_bytes": "400",
                "memory/a/memory.usage_in_bytes": "100",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "100",
            },
            300,
            id="v1",
        ),
        pytest.param("3:cpuset:/a", {}, None, id="no memory controller"),
    ],
)
def test_given_control_groups_the_tightest_is_what_is_left(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "self").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert cgroup_bytes(tmp_path / "fs", tmp_path / "self") == expected


def test_given_no_control_groups_nothing_is_said(tmp_path: Path) -> None:
    assert cgroup_bytes(tmp_path, tmp_path / "none") is None
