"""`captionq-worker evaluate --attention`: of scenes, or of images that are named."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from producer.manifest.reference import BadReference
from producer.manifest.sources import Sources
from worker.image_files import ImageFiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from worker.blip import Engine
    from worker.blip.explanation import Method


def scenes(model: Path | str, count: int, dtype: str, as_json: bool) -> None:
    """Print the figures of every method on scenes, as tables or as JSON."""
    from worker.training.attention import evaluate_attention, report

    trust = evaluate_attention(model, count, dtype=dtype)
    print(json.dumps(asdict(trust)) if as_json else report(trust))


def images(
    model: Path | str, words: Sequence[str], method: "Method | None", dtype: str, as_json: bool
) -> None:
    """Print the figures of a method, or of the default one, on image files that words stand for."""
    from worker.blip import Engine
    from worker.blip.explanation import DEFAULT_METHOD
    from worker.training.image_set import evaluate_images, report

    engine = Engine.load(model, dtype=dtype, tasks=["caption"])
    figures = evaluate_images(engine, _read(engine, list(_paths(words))), method or DEFAULT_METHOD)
    print(json.dumps(asdict(figures)) if as_json else report(figures))


def _paths(words: Sequence[str]) -> Iterator[Path]:
    """Raises ValueError for what is no file here."""
    for reference in Sources(words):
        located = reference.locate()
        if located.path is None:
            raise BadReference(f"{reference.position}: images to evaluate on are files here.")
        yield located.path


def _read(engine: "Engine", paths: Sequence[Path]) -> "Iterator[NDArray[np.uint8]]":
    files = ImageFiles(paths, engine.framing())
    for _, [framed] in files.answers(lambda read: read):
        yield framed
