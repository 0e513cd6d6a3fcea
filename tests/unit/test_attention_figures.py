"""What explanations are worth on scenes, and the arithmetic of saying so."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from worker.blip import Engine, ExplainedWord, Explanation
from worker.cli import cli
from worker.training.attention import (
    Trust,
    agreement,
    evaluate_attention,
    meets,
    report,
    spearman,
)
from worker.training.evaluate import BUNDLED
from worker.training.faithfulness import curves, order_of
from worker.training.image_set import EVEN_BORDER, EVEN_CENTRE, evaluate_images
from worker.training.pointing import mass_in, named, pointing
from worker.training.scenes import Scene, Shape, draw, sample

RED = Shape("triangle", "red", "small", (0.125, 0.25, 0.375, 0.5), (220, 30, 30))
BLUE = Shape("circle", "blue", "large", (0.5, 0.5, 1.0, 1.0), (40, 70, 225))
ONE = Scene((RED,), "white", (248, 248, 248), None)
TWO = Scene((RED, BLUE), "white", (248, 248, 248), "left of")


def explanation(scene: Scene, cells: dict[int, tuple[int, int]]) -> Explanation:
    """Maps of an 8 x 8 grid, each all in one cell; (0, 0) but where `cells` says of a word."""
    words = scene.caption.split()
    maps = np.zeros((len(words), 8, 8), np.float32)
    for word in range(len(words)):
        maps[word][cells.get(word, (0, 0))] = 1
    spelled = [ExplainedWord(word, i, i, -0.5) for i, word in enumerate(words)]
    return Explanation(scene.caption, words, spelled, maps, (8, 8), "attention")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(BUNDLED)


@pytest.fixture(scope="module")
def trust() -> Trust:
    """The bars are those of 1,000 scenes (`captionq-worker evaluate --attention`)."""
    return evaluate_attention(BUNDLED, scenes=60, methods=("attention", "gradcam"))


def test_given_two_shapes_then_colours_and_kinds_are_the_words_that_name_them() -> None:
    assert TWO.caption == "a small red triangle left of a large blue circle on white"
    assert list(named(TWO, TWO.caption.split())) == [(2, 0), (3, 0), (8, 1), (9, 1)]


def test_given_a_caption_of_another_scene_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match="2 shapes"):
        list(named(TWO, ONE.caption.split()))


def test_given_maps_on_their_shapes_then_all_words_point_and_none_at_the_other() -> None:
    found = pointing([TWO], [explanation(TWO, {2: (2, 1), 3: (3, 2), 8: (4, 4), 9: (7, 7)})])
    assert (found.accuracy, found.mass_in_box, found.swapped, found.words) == (1, 1, 0, 4)
    assert found.chance == pytest.approx((1 / 16 + 1 / 4) / 2)


def test_given_maps_on_the_other_shape_then_swapping_the_boxes_makes_them_right() -> None:
    found = pointing([TWO], [explanation(TWO, {2: (4, 4), 3: (7, 7), 8: (2, 1), 9: (3, 2)})])
    assert (found.accuracy, found.swapped) == (0, 1)


def test_given_one_shape_then_there_is_nothing_to_swap() -> None:
    found = pointing([ONE], [explanation(ONE, {2: (2, 1)})])
    assert (found.accuracy, found.swapped) == (0.5, None)


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((0, 0, 1, 1), 1),
        ((0, 0, 0.5, 0.5), 0.25),
        ((0.25, 0.25, 0.75, 0.75), 0.25),
        ((0.3, 0.1, 0.4, 0.9), 0.08),
        ((0.9, 0.9, 0.9, 0.9), 0),
    ],
)
def test_given_an_even_map_then_a_box_has_its_area_of_it(
    box: tuple[float, float, float, float], share: float
) -> None:
    assert mass_in(np.full((8, 8), 1 / 64, np.float32), box) == pytest.approx(share, abs=1e-6)


def test_given_a_map_of_one_cell_then_a_box_has_the_part_of_it_inside() -> None:
    shares = np.zeros((2, 4), np.float32)
    shares[1, 2] = 1
    assert mass_in(shares, (0.5, 0.5, 0.625, 1.0)) == pytest.approx(0.5)
    assert mass_in(shares, (0.5, 0.0, 0.75, 0.5)) == 0


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 3, 4], [1, 4, 9, 16], 1),
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9486833),  # 4.5 over the root of 4.5 times 5
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),
    ],
)
def test_given_two_maps_then_their_rank_correlation_is_spearmans(
    one: list[float], other: list[float], value: float
) -> None:
    assert spearman(np.array(one), np.array(other)) == pytest.approx(value)


def test_given_equal_maps_then_methods_agree_and_even_ones_are_left_out() -> None:
    ours = explanation(TWO, {2: (2, 1)})
    even = replace(ours, maps=np.full_like(ours.maps, 1 / 64))
    assert agreement([ours, ours], [ours, even]) == pytest.approx(1)


def test_given_a_map_then_the_patches_come_largest_share_first() -> None:
    order = order_of(explanation(ONE, {0: (1, 2), 1: (1, 2), 2: (5, 5)}))
    assert list(order[:3]) == [0, 10, 45]  # four words, two and one
    assert sorted(order) == list(range(64))


def test_given_scenes_then_hiding_what_their_words_name_costs_more_than_the_background(
    engine: Engine,
) -> None:
    drawn = [sample(random.Random(f"curves {i}"), 1) for i in range(8)]
    pixels = engine.normalised([draw(scene) for scene in drawn])
    texts = [scene.caption for scene in drawn]
    inside = []
    for scene in drawn:
        left, top, right, bottom = (v * 8 for v in scene.shapes[0].box)
        rows, columns = np.mgrid[0:8, 0:8] + 0.5
        near = (columns > left - 0.5) & (columns < right + 0.5)
        near &= (rows > top - 0.5) & (rows < bottom + 0.5)
        inside.append(np.argsort(~near.ravel(), kind="stable"))
    shape_first = curves(engine, pixels, (8, 8), texts, inside)
    shape_last = curves(engine, pixels, (8, 8), texts, [order[::-1] for order in inside])
    assert (shape_first.deletion < shape_last.deletion).all()
    assert (shape_first.insertion > shape_last.insertion).all()
    # Backwards, the one deletes what the other inserts.
    assert shape_first.deletion == pytest.approx(shape_last.insertion, abs=1e-5)


def test_given_the_bundled_checkpoint_then_the_default_method_points_at_what_words_name(
    trust: Trust,
) -> None:
    assert meets(trust) == dict.fromkeys(meets(trust), True)
    best = trust.figures[0]
    assert (best.task, best.method) == ("caption", trust.default)
    assert best.one_shape.chance < 0.2
    assert best.one_shape.mass_in_box > 3 * best.one_shape.chance
    assert (best.insertion or -9) > trust.random_insertion
    assert best.two_shapes.words == 30 * 4


def test_given_figures_that_are_poor_then_the_report_says_which_bars_they_miss(
    trust: Trust,
) -> None:
    assert "NOT MET" not in report(trust)
    assert f"| caption | **{trust.default}** | 60 |" in report(trust)
    poor = replace(trust.figures[0].two_shapes, accuracy=0.7, swapped=0.25)
    figures = [replace(trust.figures[0], two_shapes=poor, deletion_p=0.02), *trust.figures[1:]]
    said = report(replace(trust, figures=figures))
    assert "NOT MET: two_shapes, swapped, deletion_p, default" in said


def test_given_images_of_unknown_boxes_then_their_mean_map_and_curves_are_told(
    engine: Engine,
) -> None:
    centred = Shape("circle", "red", "large", (0.3, 0.3, 0.7, 0.7), (220, 30, 30))
    cornered = replace(centred, kind="star", box=(0.02, 0.02, 0.42, 0.42))
    images = [
        np.asarray(draw(Scene((shape,), "white", (248, 248, 248), None)))
        for shape in (centred, cornered)
    ]
    middle = evaluate_images(engine, [images[0]] * 3)
    corner = evaluate_images(engine, iter([images[1]]))
    assert (middle.images, corner.images) == (3, 1)
    assert middle.centre > corner.centre
    assert middle.centre > EVEN_CENTRE + 0.1
    assert middle.border < EVEN_BORDER < corner.border + 0.2
    assert np.sum(middle.mean_map) == pytest.approx(1, abs=1e-4)
    assert middle.deletion < middle.random_deletion
    assert middle.insertion > middle.random_insertion
    with pytest.raises(ValueError, match="no images"):
        evaluate_images(engine, [])


def test_given_a_folder_when_evaluated_on_then_its_images_are_and_broken_ones_are_named(
    tmp_path: Path,
) -> None:
    draw(TWO).save(tmp_path / "scene.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ["evaluate", "--attention", "--on", str(tmp_path)]
    found = CliRunner().invoke(cli, [*words, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["images"] == 1
    assert "broken.png" in found.stderr
    found = CliRunner().invoke(cli, [*words, "--method", "gradcam"])
    assert "gradcam; mean map" in found.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--on", "images"], "--attention"),
        (["--attention", "--method", "gradcam"], "--on"),
        (["--attention", "--modes"], "--calibration"),
        (["--attention", "--on", "nowhere"], "nowhere"),
        (["--attention", "--scenes", "1"], "2 at least"),
        (["--attention", "--dtype", "float8"], "float8"),
        (["--attention", "--on", ".", "--dtype", "float8"], "float8"),
    ],
)
def test_given_flags_that_do_not_go_together_then_the_command_line_says_so(
    words: list[str], says: str
) -> None:
    found = CliRunner().invoke(cli, ["evaluate", *words])
    assert found.exit_code == 2
    assert says in found.stderr
