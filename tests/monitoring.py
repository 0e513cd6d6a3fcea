"""What docs/metrics.md and the dashboard say, read."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BOARD = ROOT / "docker/grafana/dashboards/captionq.json"


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table of a document whose first column is headed so."""
    _, _, rest = text.partition(f"\n| {first} |")
    lines = rest.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard."""
    board: Any = json.loads(BOARD.read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def titles() -> set[str]:
    """What they are called."""
    return {panel["title"] for panel in panels()}
