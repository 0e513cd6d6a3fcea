"""What was explained of one image, as the bytes of one .npz; and what a result says of it.

The file (numpy.load reads it) has, for the n-th caption or text, counted from 0:

    text_n   its text
    words_n  its words, [words]
    maps_n   float16 [words, rows, columns]: each word's map; a map's sum is 1
    raw_n    float16 [layers, heads, tokens, rows, columns]: attention probabilities, if asked for

and of all of them:

    grid     rows, columns
    size     width, height of the upright original, in pixels
    cells    float32 [rows, columns, 4]: left, top, right, bottom of each patch on the original, in
             pixels; NaN where it shows padding alone
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from producer.contract import WordExplanation, WordsExplained

if TYPE_CHECKING:
    from worker.blip.explanation import Explanation
    from worker.blip.placement import PlacedGrid

__all__ = ["Explained", "words_explained"]


@dataclass(frozen=True, eq=False)
class Explained:
    """What was explained of one image, and the image that it is placed on."""

    explanations: "Sequence[Explanation]"
    placed: "PlacedGrid"

    def npz(self) -> bytes:
        """The file: see the module."""
        rows, columns = self.placed.grid
        nowhere = (np.nan,) * 4
        cells = [extent or nowhere for extent in self.placed.extents()]
        arrays: dict[str, np.ndarray] = {
            "grid": np.array(self.placed.grid),
            "size": np.array([self.placed.width, self.placed.height]),
            "cells": np.array(cells, np.float32).reshape(rows, columns, 4),
        }
        for number, one in enumerate(self.explanations):
            arrays[f"text_{number}"] = np.array(one.text)
            arrays[f"words_{number}"] = np.array([word.text for word in one.words])
            arrays[f"maps_{number}"] = one.maps.astype(np.float16)
            if one.raw is not None:
                arrays[f"raw_{number}"] = one.raw.astype(np.float16)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type] # its stubs want a flag there
        return file.getvalue()


def words_explained(found: "Explanation", text: str, placed: "PlacedGrid") -> WordsExplained:
    """What a result says of an explanation. Raises ValueError for a method that is not served."""
    words = []
    for word, shares in zip(found.words, found.maps, strict=True):
        at = placed.locate(shares)
        words.append(
            WordExplanation(
                text=word.text,
                logprob=word.logprob,
                peak=(round(at.peak[0], 1), round(at.peak[1], 1)),
                box=at.box,
                entropy=round(at.entropy, 4),
                coverage=min(1.0, at.coverage),
            )
        )
    if found.method == "occlusion":
        raise ValueError("occlusion is not served")
    return WordsExplained(text=text, method=found.method, grid=found.grid, words=tuple(words))
