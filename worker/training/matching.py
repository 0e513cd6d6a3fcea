"""What the matching half of a checkpoint is worth on scenes: retrieval, best of n, the filter.

python -m worker.training.matching [MODEL] [--scenes N] [--seed TEXT] [--json]
"""

import argparse
import json
from pathlib import Path

from worker.blip import Engine
from worker.training.best_of import best_of
from worker.training.evaluate import BUNDLED
from worker.training.filtering import filtering
from worker.training.retrieval import retrieval

SEED = "matching"
SHORTLIST = 32
SAMPLES = 5
BARS = {
    "rerank_recall_at_1": "at least 0.99, or 0.03 above itc_recall_at_1",
    "single_exact": "0.6 to 0.8",
    "best_of_5_p": "below 0.01, best_of_5_exact above single_exact",
    "filter_kept": "at least 0.95",
    "filter_rejected": "at least 0.95",
}


def evaluate_matching(
    directory: Path | str, scenes: int = 1000, seed: str = SEED, dtype: str = "float32"
) -> dict[str, float]:
    """The figures of a model folder with both tasks, run by the engine on the CPU.

    Each on `scenes` scenes that training has not seen; see retrieval, best_of and filtering.
    """
    engine = Engine.load(directory, dtype=dtype)
    return {
        **retrieval(engine, scenes, min(SHORTLIST, scenes), f"{seed}:retrieval"),
        **best_of(engine, scenes, SAMPLES, f"{seed}:best of"),
        **filtering(engine, scenes, f"{seed}:filtering"),
    }


def meets(figures: dict[str, float]) -> dict[str, bool]:
    """Which of BARS the figures meet."""
    rerank, single = figures["rerank_recall_at_1"], figures["single_exact"]
    return {
        "rerank_recall_at_1": rerank >= min(0.99, figures["itc_recall_at_1"] + 0.03 - 1e-9),
        "single_exact": 0.6 <= single <= 0.8,
        "best_of_5_p": figures["best_of_5_p"] < 0.01 and figures["best_of_5_exact"] > single,
        "filter_kept": figures["filter_kept"] >= 0.95,
        "filter_rejected": figures["filter_rejected"] >= 0.95,
    }


def report(figures: dict[str, float]) -> str:
    """The figures, one a line, with what the bundled checkpoint is held to."""
    met = meets(figures)
    lines = []
    for name, value in figures.items():
        number = f"{value:9.1e}" if name.endswith("_p") else f"{value:9.4f}"
        bar = f"   ({BARS[name]}{'' if met[name] else ': NOT MET'})" if name in BARS else ""
        lines.append(f"{name:<28} {number}{bar}")
    return "\n".join(lines)


def main() -> None:
    """Prints the figures of a model folder, as lines or as JSON."""
    parser = argparse.ArgumentParser(description="Retrieval, best of 5 and filter on scenes.")
    parser.add_argument("model", nargs="?", type=Path, default=BUNDLED, help="a model folder")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = evaluate_matching(given.model, given.scenes, given.seed)
    print(json.dumps(figures) if given.json else report(figures))


if __name__ == "__main__":
    main()
