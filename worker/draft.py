"""When a JPEG may be decoded at half its size, a quarter or an eighth: it takes less time, and
gives pixels that differ a little after the resize to what the model sees.

Where a colour is saturated at a sharp edge, a full decoding clips it pixel by pixel, and a draft
clips averages. Colours at half the resolution (4:2:0, what cameras write) are smeared over such
edges, and more is clipped there; those at half the width alone (4:2:2) are drafted badly besides.

    close   colours at full resolution, and grey: differs by no more than 4 of 255, 0.2 on average
    fast    all: up to 12 of 255, a few values in 10,000 by more than 4
    off     every pixel is decoded
"""

from math import ceil
from typing import Literal

__all__ = ["Draft", "draft_px"]

Draft = Literal["close", "fast", "off"]

LEFT_SIDES = 3.75
"""How many times the wanted side a draft has to keep: at twice, means rise to 0.3."""

LEAST_PX = 768
FULL_COLOUR = 0  # PIL.JpegImagePlugin.get_sampling


def draft_px(draft: Draft, size: tuple[int, int], sampling: int | None, wanted: int) -> int | None:
    """The side that a draft may not fall below; None where nothing is to be drafted.

    Args:
        draft: how much may be given for speed.
        size: width and height of the file.
        sampling: of the colours, as Pillow numbers it; None for grey.
        wanted: the longer side that the picture is resized to.
    """
    least = max(LEAST_PX, ceil(LEFT_SIDES * wanted))
    if draft == "off" or min(size) < 2 * least:
        return None
    if draft == "fast" or sampling in (None, FULL_COLOUR):
        return least
    return None
