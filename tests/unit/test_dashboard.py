"""docker/grafana: the dashboard asks for what there is, in PromQL."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.monitoring import BOARD, ROOT, panels, table

SERIES = {
    re.sub("`", "", row[0]): row[1]
    for row in table((ROOT / "docs/metrics.md").read_text(), "Series")
}
EXPRESSIONS = [target["expr"] for panel in panels() for target in panel["targets"]]
OTHERS = {"up", "process_start_time_seconds", "process_resident_memory_bytes"}


def names(expression: str) -> set[str]:
    """The series that an expression asks for."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)", "", expression)
    found = set()
    for one in re.findall(r"\b(?:captionq|process)_\w+|\bup\b", bare):
        short = re.sub(r"_(bucket|sum|count)$", "", one)
        found.add(short if SERIES.get(short) == "histogram" else one)
    return found


def test_the_dashboard_asks_for_series_that_there_are() -> None:
    asked = set().union(*map(names, EXPRESSIONS))
    assert asked - set(SERIES) <= OTHERS


def test_every_series_is_on_the_dashboard() -> None:
    asked = set().union(*map(names, EXPRESSIONS))
    assert set(SERIES) <= asked


def test_every_panel_asks_the_data_source_that_is_chosen_above() -> None:
    board = json.loads(BOARD.read_text())
    assert [one["name"] for one in board["templating"]["list"]] == ["datasource"]
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_panels_lie_side_by_side_and_not_over_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(BOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_promtool_can_read_every_expression(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian's package prometheus): expressions are not parsed")
    rules = [
        {"record": f"panel:{n}", "expr": one.replace("$__rate_interval", "5m")}
        for n, one in enumerate(EXPRESSIONS)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
