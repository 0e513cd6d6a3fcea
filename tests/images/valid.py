"""All valid files, of every accepted format."""

from tests.images.bmps import bmps
from tests.images.gifs import gifs
from tests.images.jpegs import jpegs
from tests.images.orientation import oriented, unharmed_by_exif
from tests.images.pngs import png_chunks, png_kinds, png_shapes, png_transparent_colours
from tests.images.sample import Sample
from tests.images.webps import webps


def samples() -> list[Sample]:
    """All of them, made anew."""
    makers = (
        png_kinds, png_transparent_colours, png_chunks, png_shapes,
        jpegs, webps, gifs, bmps, oriented, unharmed_by_exif,
    )  # fmt: skip
    return [sample for maker in makers for sample in maker()]
