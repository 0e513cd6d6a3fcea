"""Explanations of one image as files: arrays, pictures and a page.

Of the image NAME, the best caption has

    NAME.npz            its maps, and how they lie on the image
    NAME.word-01.png    its first word's map over the image, and so on, up to MOST_WORDS
    NAME.sheet.png      all of them
    NAME.html           a page of all captions

and the second NAME.caption-2.npz, and so on. An .npz, read by numpy.load, has

    maps      float16 [words, rows, columns]: shares, each map with sum 1
    words     str [words]
    logprobs  float32 [words], natural logarithms; NaN in a text that was matched
    text, method  str
    grid      int32 (rows, columns)
    size      int32 (width, height) of the image, upright, in pixels
    origin    float64 (x, y) of the grid's upper left corner in it
    cell      float64 (width, height) of one cell in it
    seen      int32 (left, top, right, bottom): what of the image the model was shown
    raw       float16 [layers, heads, tokens, rows, columns], where that was asked for
    tokens    str [tokens], with raw

In every resolution mode, cell (row, column) covers origin + (column, row) * cell, and one cell more
to the right and down, as far as that lies inside `seen` (mapping.py).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from worker.blip.explanation import Explanation
from worker.blip.placement import PlacedGrid
from worker.pictures.contact_sheet import contact_sheet
from worker.pictures.ground import Ground
from worker.pictures.mapping import mapping
from worker.pictures.overlay import LONGEST, MOST_WORDS, overlay
from worker.pictures.page import page

Kind = Literal["arrays", "overlays", "sheet", "page"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Put = Callable[[str, bytes], object]
"""Takes a file's name and its bytes."""


def write(
    explanations: Sequence[Explanation],
    image: Ground,
    placed: PlacedGrid,
    to: Path | Put,
    *,
    name: str,
    kinds: Collection[Kind] = KINDS,
    longest: int = LONGEST,
) -> list[str]:
    """Write the files of one image's explanations into a folder, which is made, or hand them over.

    name: of the image, and what the names of its files begin with. longest: side of the overlays
    in pixels. Returns the names. Arrays alone need no matplotlib.

    Raises:
        NotInstalled: pictures without matplotlib.
        ValueError: an image, maps and a `placed` that do not belong together.
        OSError: a file cannot be written.
    """
    if isinstance(to, Path):
        to.mkdir(parents=True, exist_ok=True)
    names = []
    for file, data in files(explanations, image, placed, name, kinds, longest):
        if isinstance(to, Path):
            (to / file).write_bytes(data)
        else:
            to(file, data)
        names.append(file)
    return names


def files(
    explanations: Sequence[Explanation],
    image: Ground,
    placed: PlacedGrid,
    name: str,
    kinds: Collection[Kind] = KINDS,
    longest: int = LONGEST,
) -> Iterator[tuple[str, bytes]]:
    """The files that `write` writes, one by one: name and bytes."""
    for place, explanation in enumerate(explanations, start=1):
        stem = name if place == 1 else f"{name}.caption-{place}"
        if "arrays" in kinds:
            yield f"{stem}.npz", arrays(explanation, placed)
        if "overlays" in kinds:
            for number, shares in enumerate(explanation.maps[:MOST_WORDS], start=1):
                yield f"{stem}.word-{number:02}.png", overlay(image, shares, placed, longest)
        if "sheet" in kinds:
            yield f"{stem}.sheet.png", contact_sheet(image, explanation, placed)
    if "page" in kinds and explanations:
        yield f"{name}.html", page(image, explanations, placed, name)


def arrays(explanation: Explanation, placed: PlacedGrid) -> bytes:
    """An .npz of one explanation; the same bytes for the same one."""
    lies, words = mapping(placed), explanation.words
    logprobs = [np.nan if word.logprob is None else word.logprob for word in words]
    members: dict[str, NDArray[Any]] = {
        "maps": explanation.maps.astype(np.float16),
        "words": np.array([word.text for word in words], dtype=np.str_),
        "logprobs": np.array(logprobs, np.float32),
        "text": np.array(explanation.text),
        "method": np.array(explanation.method),
        "grid": np.array(explanation.grid, np.int32),
        "size": np.array(lies.size, np.int32),
        "origin": np.array(lies.origin, np.float64),
        "cell": np.array(lies.cell, np.float64),
        "seen": np.array(lies.seen, np.int32),
    }
    if explanation.raw is not None:
        members["raw"] = explanation.raw.astype(np.float16)
        members["tokens"] = np.array(explanation.tokens, dtype=np.str_)
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=False, **members)
    return file.getvalue()
