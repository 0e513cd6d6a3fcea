"""Peaks on the original image: scenes drawn at known places, in every shape, turn and mode."""

from pathlib import Path

import pytest
from PIL import Image

from worker.blip import Engine
from worker.blip.framing import Framing
from worker.blip.geometry import Mode
from worker.blip.images import open_rgb
from worker.blip.placement import placed
from worker.training.evaluate import BUNDLED
from worker.training.scenes import KINDS, Scene, Shape, draw

GRAY = (123, 117, 104)  # that of letterbox bars, so that they are not seen as a thing
ORIENTATION = 0x0112
TURNED = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientations, and the turn that stores an upright picture so."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(BUNDLED)


def scene(x: float, y: float, canvas: tuple[float, float]) -> Scene:
    """A red circle, half as wide as the narrower side, whose middle is at (x, y), in shares."""
    radius = min(canvas) * 0.24
    x, y = x * canvas[0], y * canvas[1]
    box = (x - radius, y - radius, x + radius, y + radius)
    return Scene((Shape("circle", "red", "large", box, (220, 30, 30)),), "gray", GRAY, None)


def assert_peak_on_the_circle(
    engine: Engine, image: Image.Image, framing: Framing, box: tuple[float, ...]
) -> None:
    """box: the circle's, in pixels of the upright original."""
    framed = [framing.frame(image)]
    captions = engine.caption(framed, mode="native", num_beams=1)
    [[found]] = engine.explain(framed, captions, mode="native")
    words = {word.text for word in found.words}
    assert "red" in words, found.text
    assert len(words & set(KINDS)) == 1, found.text  # whatever it takes the circle for
    grid = placed(framing, *image.size)
    assert grid.grid == found.grid
    for word, shares in zip(found.words, found.maps, strict=True):
        if word.text == "red" or word.text in KINDS:
            located = grid.locate(shares)
            left, top, right, bottom = box
            assert left <= located.peak[0] <= right, word
            assert top <= located.peak[1] <= bottom, word
            assert located.box[0] < right
            assert located.box[2] > left
            assert located.box[1] < bottom
            assert located.box[3] > top


@pytest.mark.parametrize("place", [(0.25, 0.3), (0.7, 0.72)])
@pytest.mark.parametrize(
    ("mode", "canvas"),
    [
        ("stretch", (1.0, 1.0)),
        ("stretch", (1.3, 0.8)),
        ("pad", (1.6, 0.9)),
        ("pad", (0.9, 1.5)),
        ("crop", (1.25, 1.0)),
        ("native", (1.6, 0.9)),
        ("native", (0.8, 1.7)),
        ("native", (2.0, 0.5)),
    ],
)
def test_given_a_circle_at_a_known_place_then_its_words_peak_there_on_the_original(
    engine: Engine, mode: Mode, canvas: tuple[float, float], place: tuple[float, float]
) -> None:
    side = 173  # no multiple of anything here
    drawn = scene(*place, canvas)
    image = draw(drawn, side, canvas)
    box = tuple(v * side for v in drawn.shapes[0].box)
    assert_peak_on_the_circle(engine, image, engine.framing(mode), box)


@pytest.mark.parametrize("orientation", TURNED)
def test_given_a_turned_photograph_then_peaks_are_where_the_circle_is_when_it_is_upright(
    engine: Engine, tmp_path: Path, orientation: int
) -> None:
    canvas, side = (1.4, 1.0), 211
    drawn = scene(0.28, 0.3, canvas)
    upright = draw(drawn, side, canvas)
    turn = TURNED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = open_rgb(tmp_path / "turned.jpg")
    assert image.size == upright.size
    box = tuple(v * side for v in drawn.shapes[0].box)
    for mode in ("stretch", "pad", "native"):
        assert_peak_on_the_circle(engine, image, engine.framing(mode), box)
