"""The rows of a batch: the options of each image, and which of them are decoded together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from worker.blip.options import CaptionOptions

MOST_COLUMNS = 32_768
"""Of the caches of a group, over all its rows: 1.2 GB for BLIP-base in bfloat16."""


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


def groups(rows: Sequence[CaptionOptions], prompt_lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers, those that are decoded together in one list.

    Rows share a group if they share what changes the computation's shape, beams and samples, and
    as long as their self-attention caches, made for the longest of them, stay within MOST_COLUMNS:
    one job of 500 tokens and 10 beams takes as much memory as 25 of the usual ones.
    """
    found: list[list[int]] = []
    running: dict[tuple[int, int], tuple[list[int], int, int]] = {}  # members, prompt, new tokens
    for index, (row, prompt) in enumerate(zip(rows, prompt_lengths, strict=True)):
        key, new = (row.num_beams, row.num_samples), row.steps
        members, longest_prompt, longest_new = running.get(key, ([], 0, 0))
        prompt, new = max(prompt, longest_prompt), max(new, longest_new)
        if not members or (len(members) + 1) * (prompt + new * row.width) > MOST_COLUMNS:
            members, prompt, new = [], prompt_lengths[index], row.steps
            found.append(members)
        members.append(index)
        running[key] = members, prompt, new
    return found
