"""The rows of a batch: the options of each image, and which of them are decoded together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from worker.blip.options import CaptionOptions


def rows_of(
    options: CaptionOptions | Sequence[CaptionOptions] | None, names: dict[str, Any], images: int
) -> list[CaptionOptions]:
    """The options of each image."""
    if options is None:
        return [CaptionOptions(**names)] * images
    rows = [options] * images if isinstance(options, CaptionOptions) else list(options)
    if len(rows) != images:
        raise ValueError(f"{len(rows)} options for {images} images")
    return [replace(row, **names) for row in rows] if names else rows


def groups(rows: Sequence[CaptionOptions]) -> list[list[int]]:
    """Row numbers, grouped by what changes the computation's shape: beams and samples."""
    members: dict[tuple[int, int], list[int]] = {}
    for index, row in enumerate(rows):
        members.setdefault((row.num_beams, row.num_samples), []).append(index)
    return list(members.values())
