"""The colours of maps: matplotlib's, dark for little and bright for much."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

COLOUR_MAP = "inferno"
"""Perceptually uniform: steps of a map look alike, to people who see few colours as well."""
OPACITY = 0.8
"""Of a map at its peak; elsewhere in proportion to the map, so that the image shows through."""


class NotInstalled(OSError):  # noqa: N818 - that is what it is
    """Pictures need matplotlib, and it is not there."""

    def __init__(self) -> None:
        super().__init__("Pictures of maps need matplotlib: pip install 'captionq[report]'")


@cache
def colours() -> NDArray[np.uint8]:
    """RGB of the values 0 to 255: uint8 [256, 3], not to be written to.

    Raises:
        NotInstalled: matplotlib is not there.
    """
    try:
        from matplotlib import colormaps
    except ModuleNotFoundError as exc:
        raise NotInstalled from exc
    table = (colormaps[COLOUR_MAP](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    table.flags.writeable = False
    made: NDArray[np.uint8] = table
    return made
