"""What the bundled checkpoint's matching half is worth, and the arithmetic of saying so."""

import random

import numpy as np
import pytest
from typer.testing import CliRunner

from worker.blip import Engine
from worker.cli import cli
from worker.training import matching
from worker.training.best_of import mcnemar, said
from worker.training.encoded import encoded, some
from worker.training.evaluate import BUNDLED, usual
from worker.training.filtering import PAPERS_THRESHOLD, Probabilities, balanced, probabilities
from worker.training.matching import BARS, evaluate_matching, meets, report
from worker.training.retrieval import distinct, retrieval
from worker.training.scenes import ATTRIBUTES, HELD_OUT

GOOD = {
    "itc_recall_at_1": 0.93,
    "rerank_recall_at_1": 0.988,
    "single_exact": 0.7,
    "best_of_5_exact": 0.9,
    "best_of_5_p": 1e-9,
    "filter_kept": 0.98,
    "filter_rejected": 0.97,
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(BUNDLED)


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    """The bars are those of 1,000 scenes (`captionq-worker evaluate --matching`)."""
    return evaluate_matching(BUNDLED, scenes=100)


def test_given_the_bundled_checkpoint_then_itm_reranks_what_itc_has_shortlisted(
    figures: dict[str, float],
) -> None:
    assert figures["itc_recall_at_32"] >= figures["itc_recall_at_1"]
    assert figures["rerank_recall_at_1"] >= 0.97
    assert figures["rerank_recall_at_1"] <= figures["itc_recall_at_32"]


def test_given_the_bundled_checkpoint_then_the_best_of_5_beats_a_lone_sample(
    figures: dict[str, float],
) -> None:
    assert 0.6 <= figures["single_exact"] <= 0.8
    assert figures["best_of_5_exact"] > figures["single_exact"] + 0.1
    assert figures["best_of_5_exact"] <= figures["any_of_5_exact"]
    assert figures["best_of_5_p"] < 0.01


def test_given_the_bundled_checkpoint_then_the_filter_keeps_what_is_right_and_rejects_the_rest(
    figures: dict[str, float],
) -> None:
    assert figures["filter_kept"] >= 0.94
    assert figures["filter_rejected"] >= 0.94
    by_attribute = [figures[f"filter_rejected_{attribute}"] for attribute in ATTRIBUTES]
    assert min(by_attribute) <= figures["filter_rejected"] <= max(by_attribute)


def test_given_a_shortlist_of_one_then_reranking_changes_nothing(engine: Engine) -> None:
    found = retrieval(engine, 60, 1, "one")
    assert found["itc_recall_at_1"] == found["rerank_recall_at_1"]


def test_given_a_shortlist_of_all_then_the_recall_is_that_of_matching_every_pair(
    engine: Engine,
) -> None:
    scenes = distinct(random.Random("all"), 30)
    captions = [scene.caption for scene in scenes]
    rows = engine.match(encoded(engine, scenes), captions)
    scores = np.array([[match.score for match in row] for row in rows])  # [image, text]
    recall = (scores.argmax(axis=0) == np.arange(30)).mean()
    assert retrieval(engine, 30, 30, "all")["rerank_recall_at_1"] == pytest.approx(recall)


def test_given_a_pool_then_no_caption_is_twice_in_it_and_all_are_of_seen_combinations() -> None:
    scenes = distinct(random.Random("pool"), 500)
    assert len({scene.caption for scene in scenes}) == len(scenes) == 500
    assert {len(scene.shapes) for scene in scenes} == {1, 2}
    assert not {shape.combination for scene in scenes for shape in scene.shapes} & set(HELD_OUT)


def test_given_a_seed_then_a_lone_sample_is_among_the_five(engine: Engine) -> None:
    images = encoded(engine, usual(random.Random("samples"), 12))
    lone, every = said(engine, images, 2.0, 1), said(engine, images, 2.0, 5)
    assert all(one in five for [one], five in zip(lone, every, strict=True))
    assert any(len(five) > 1 for five in every)
    assert len(some(images, [3, 1])) == 2


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 5, 0.0625),
        (5, 0, 0.0625),
        (2, 8, 0.109375),  # 2 (1 + 10 + 45) / 2^10
        (7, 1, 0.0703125),  # 2 (1 + 8) / 2^8
        (4, 4, 1.0),
        (0, 10, 0.001953125),
    ],
)
def test_mcnemar_is_the_two_sided_binomial_test_of_the_discordant_pairs(
    one: int, other: int, p: float
) -> None:
    assert mcnemar(one, other) == pytest.approx(p)


def test_given_thousands_of_discordant_pairs_then_mcnemar_is_still_a_number() -> None:
    assert 0 <= mcnemar(500, 2500) < 1e-200
    assert mcnemar(2000, 2000) == 1.0


@pytest.mark.parametrize(
    ("right", "wrong", "threshold"),
    [
        ([0.9, 0.8], [0.2, 0.4], 0.6),
        ([0.9, 0.3, 0.8, 0.7], [0.2, 0.4, 0.5, 0.1], 0.6),
        ([0.5], [0.5], PAPERS_THRESHOLD),
    ],
)
def test_a_threshold_is_where_as_many_right_captions_stay_as_wrong_ones_go(
    right: list[float], wrong: list[float], threshold: float
) -> None:
    found = Probabilities(np.array(right), {"kind": np.array(wrong)})
    assert balanced(found) == pytest.approx(threshold)


def test_given_scenes_then_each_has_a_false_caption_for_every_attribute_it_has(
    engine: Engine,
) -> None:
    found = probabilities(engine, 20, "few")
    assert len(found.right) == 20
    for attribute in ("kind", "colour", "size", "background"):
        assert len(found.wrong[attribute]) == 20
    assert len(found.wrong["relation"]) == 12
    assert found.kept(0) == 1
    assert found.rejected(0) == 0
    assert found.kept(2) == 0
    assert found.rejected(2) == 1


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("rerank_recall_at_1", 0.95, False),
        ("rerank_recall_at_1", 0.96, True),
        ("single_exact", 0.85, False),
        ("best_of_5_p", 0.02, False),
        ("filter_kept", 0.949, False),
        ("filter_rejected", 0.949, False),
    ],
)
def test_given_a_figure_below_its_bar_then_the_report_says_so(
    name: str, value: float, met: bool
) -> None:
    assert all(meets(GOOD).values())
    figures = GOOD | {name: value}
    assert meets(figures)[name] is met
    [line] = [line for line in report(figures).splitlines() if line.startswith(f"{name} ")]
    assert BARS[name] in line
    assert ("NOT MET" in line) is not met
    assert report(GOOD).count("NOT MET") == 0


def test_given_the_command_then_json_has_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        matching,
        "evaluate_matching",
        lambda model, scenes, dtype: asked.append((model, scenes, dtype)) or GOOD,
    )
    run = CliRunner().invoke(cli, ["evaluate", "--matching", "--json"])
    assert run.exit_code == 0
    assert '"best_of_5_p": 1e-09' in run.stdout
    assert [(scenes, dtype) for _, scenes, dtype in asked] == [(1000, "float32")]
    both = CliRunner().invoke(cli, ["evaluate", "--matching", "--modes"])
    assert both.exit_code == 2
