"""How scores are distributed, as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from producer.manifest.parquet import NotInstalled
from producer.validation.tally import Bins, Tally

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = 50
INK, BAR, MARK = "#1a1a1a", "#4477aa", "#cc3311"
"""Colours that people who see few tell apart (Paul Tol's bright scheme)."""


def new_figure() -> "Figure":
    """An empty figure, drawn without a display.

    Raises:
        NotInstalled: matplotlib is not there.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as exc:
        raise NotInstalled(
            "The histogram needs matplotlib: pip install 'captionq[report]'"
        ) from exc
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def draw_histogram(tally: Tally, path: Path) -> None:
    """Write a PNG with the distributions of itm_probability, the threshold marked, and itc_cosine.

    Raises:
        NotInstalled: without matplotlib.
        OSError: it cannot be written.
    """
    figure = new_figure()
    left, right = figure.subplots(1, 2)
    _bars(left, tally.itm, "ITM probability")
    left.axvline(tally.min_itm, color=MARK, linestyle="--", linewidth=1.8)
    share = tally.below / tally.pairs if tally.pairs else 0.0
    left.set_title(f"{tally.below:,} ({share:.1%}) below {tally.min_itm:g}", color=MARK, loc="left")
    _bars(right, tally.itc, "ITC cosine")
    figure.suptitle(f"{tally.pairs:,} pairs of image and caption", color=INK, fontsize=13)
    figure.savefig(path, format="png", metadata={"Software": None})


def _bars(axes: "Axes", bins: Bins, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    counts, edges = bins.merged(BARS)
    axes.stairs(counts, edges, fill=True, color=BAR)
    seen = [edge for edge, count in zip(edges, counts, strict=False) if count]
    if seen and bins.low < 0:  # cosines take a small part of what they might
        width = edges[1] - edges[0]
        axes.set_xlim(max(bins.low, seen[0] - 2 * width), min(bins.high, seen[-1] + 3 * width))
    else:
        axes.set_xlim(bins.low, bins.high)
    axes.set_xlabel(name, fontsize=11)
    axes.set_ylabel("Pairs", fontsize=11)
    axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
