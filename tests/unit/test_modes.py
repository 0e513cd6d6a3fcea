"""Elongated scenes, and the figures of the resolution modes on them."""

import random

import pytest

from worker.blip.geometry import MODES
from worker.training.evaluate import BUNDLED
from worker.training.modes import CANVASES, KINDS, Figure, elongated, evaluate_modes, report
from worker.training.scenes import RADII, draw


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", CANVASES)
def test_given_an_elongated_scene_then_its_shapes_lie_on_the_canvas_as_the_caption_says(
    image: str, kind: str
) -> None:
    canvas, rng = CANVASES[image], random.Random(1)
    assert canvas[0] * canvas[1] == 1
    for _ in range(200):
        scene = elongated(rng, canvas, kind)
        for shape in scene.shapes:
            left, top, right, bottom = shape.box
            assert 0 < left < right < canvas[0]
            assert 0 < top < bottom < canvas[1]
            low, high = RADII[shape.size]
            assert low - 1e-9 < (right - left) / 2 < high + 1e-9
            assert right - left == pytest.approx(bottom - top)
        if kind == "two":
            first, second = (shape.box for shape in scene.shapes)
            along = 0 if canvas[0] > canvas[1] else 1
            assert scene.relation == ("left of", "above")[along]
            assert first[along + 2] < second[along]
        else:
            assert scene.relation is None


def test_given_a_canvas_when_drawn_then_the_picture_has_its_shape_and_squares_stay_square() -> None:
    scene = elongated(random.Random(2), (2.0, 0.5), "middle")
    picture = draw(scene, 96, (2.0, 0.5))
    assert picture.size == (192, 48)
    assert picture.getpixel((0, 0)) == scene.background_rgb


def test_given_the_bundled_checkpoint_then_native_mode_sees_most_in_elongated_scenes() -> None:
    figures = evaluate_modes(BUNDLED, scenes=8, sides=[1])
    assert len(figures) == len(CANVASES) * len(KINDS) * len(MODES)
    assert all(0 <= figure.exact <= figure.named <= 1 for figure in figures)
    exact = {mode: sum(figure.exact for figure in figures if figure.mode == mode) for mode in MODES}
    assert exact["native"] > exact["stretch"] + 1
    assert exact["native"] > max(exact["pad"], exact["crop"]) + 1


def test_given_figures_then_their_report_has_a_row_for_each_mode_and_image() -> None:
    figures = [Figure("pad", 96, "4:1", kind, 0.25, 0.5) for kind in KINDS]
    assert report(figures).splitlines()[2] == "| 4:1 | 96 | pad |" + " 25% / 50% |" * 3
