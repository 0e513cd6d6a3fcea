"""The picture of the scores."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from producer.manifest.parquet import NotInstalled
from producer.validation.histogram import draw_histogram, new_figure
from tests.unit.validation.test_tally import scored, tally

BLUE, RED = (0x44, 0x77, 0xAA), (0xCC, 0x33, 0x11)


def drawn(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with Image.open(BytesIO(path.read_bytes())) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def columns(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", colour: object) -> list[int]:
    """Where, from left to right, a colour makes a column of more than 100 pixels."""
    return np.flatnonzero((pixels == colour).all(axis=2).sum(axis=0) > 100).tolist()


def test_given_scores_then_bars_stand_where_they_are_and_the_threshold_is_marked(
    tmp_path: Path,
) -> None:
    low, high = [scored(n, 0.05, 0.1) for n in range(10)], [scored(n, 0.95, 0.4) for n in range(10)]
    for name, min_itm in (("a.png", 0.25), ("b.png", 0.75)):
        draw_histogram(tally(*low, *high, min_itm=min_itm), tmp_path / name)

    first, second = (drawn(tmp_path / name) for name in ("a.png", "b.png"))
    height, width, _ = first.shape
    assert (width, height) == (1500, 630)
    bars = columns(first, BLUE)
    assert len(bars) > 20  # both of each half
    assert min(bars) < width // 4
    assert max(bars) > width // 2
    (a, b) = (np.mean(columns(pixels, RED)) for pixels in (first, second))
    assert width // 8 < a < width // 4 < b < width // 2


@pytest.mark.parametrize("count", [0, 1])
def test_given_few_scores_or_none_then_there_is_a_picture(tmp_path: Path, count: int) -> None:
    draw_histogram(tally(*(scored(n, 0.5) for n in range(count))), tmp_path / "x.png")

    assert drawn(tmp_path / "x.png").shape == (630, 1500, 3)


def test_given_no_matplotlib_then_it_is_said_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)

    with pytest.raises(NotInstalled, match=r"pip install 'captionq\[report\]'"):
        new_figure()


def test_the_command_loads_no_matplotlib_before_it_draws() -> None:
    script = "import sys, producer.cli; assert 'matplotlib' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
