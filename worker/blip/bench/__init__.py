"""Benchmarks of the engine: `python -m worker.blip.bench`. Needs torch and transformers alone."""

from worker.blip.bench.command import main
from worker.blip.bench.compare import Case, Result, measure

__all__ = ["Case", "Result", "main", "measure"]
