"""Calibrations fitted: curves, halves, thresholds, figures, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from worker.calibration import Calibration, Isotonic, Platt, sigmoid
from worker.training.calibrate import (
    calibration_error,
    fit,
    halves,
    isotonic,
    platt,
    probabilities,
    report,
    threshold_for,
)
from worker.training.scores import Scores

Curve = Callable[[Any], Any]


def scores(pairs: int, curve: Curve, seed: int = 0, each: int = 2) -> Scores:
    """Margins in -10..10 whose labels follow `curve`; `each` pairs to an image."""
    rng = np.random.default_rng(seed)
    margins = rng.uniform(-10, 10, pairs)
    labels = rng.random(pairs) < curve(margins)
    return Scores(margins, labels, np.arange(pairs) // each)


def sigmoidal(margins: Any) -> Any:
    return 1 / (1 + np.exp(-(0.4 * margins - 0.8)))


def stepped(margins: Any) -> Any:
    return np.where(margins < -4, 0.05, np.where(margins < 6, 0.45, 0.95))


def fitted(given: Scores, **options: Any) -> Calibration:
    return fit(given, model_id="model", revision="abc", position_zero="enc", **options)


def test_given_labels_that_follow_a_sigmoid_then_platt_finds_it() -> None:
    curve = platt(scores(20_000, sigmoidal))
    assert curve.slope == pytest.approx(0.4, abs=0.02)
    assert curve.intercept == pytest.approx(-0.8, abs=0.1)


def test_given_labels_then_isotonic_is_scikit_learns_between_and_beyond_its_knots() -> None:
    given = scores(500, stepped)
    reference = IsotonicRegression(y_min=1 / 502, y_max=501 / 502, out_of_bounds="clip")
    reference.fit(given.margins, given.labels.astype(float))
    asked = np.linspace(-15, 15, 997)
    np.testing.assert_allclose(
        probabilities(isotonic(given), asked), reference.predict(asked), atol=1e-12
    )


def test_given_pairs_that_a_margin_separates_then_both_curves_stay_short_of_certainty() -> None:
    given = scores(200, lambda margins: margins > 0)
    for curve in (platt(given), isotonic(given)):
        assert 0.9 < curve.probability(10) < 1
        assert 0 < curve.probability(-10) < 0.1


@pytest.mark.parametrize(("curve", "chosen"), [(sigmoidal, Platt), (stepped, Isotonic)])
def test_given_no_method_then_the_curve_that_suits_the_labels_is_chosen(
    curve: Curve, chosen: type
) -> None:
    assert isinstance(fitted(scores(4_000, curve), precision=0.8).parameters, chosen)


@pytest.mark.parametrize(("method", "kind"), [("platt", Platt), ("isotonic", Isotonic)])
@pytest.mark.parametrize("curve", [sigmoidal, stepped])
def test_given_a_method_then_it_is_taken_and_calibration_is_better_on_unseen_pairs(
    method: str, kind: type, curve: Curve
) -> None:
    made = fitted(scores(8_000, curve), method=method, precision=0.8)
    assert isinstance(made.parameters, kind)
    assert made.before.calibration_error > 0.1
    assert made.after.calibration_error < made.before.calibration_error / 2
    assert made.after.log_loss < made.before.log_loss
    assert made.after.roc_auc == pytest.approx(made.before.roc_auc, abs=0.01)


def test_given_a_fit_then_it_says_what_it_is_of_and_its_figures_are_the_other_halfs() -> None:
    given = scores(20_000, sigmoidal)
    made = fitted(given, precision=0.9, seed=3)
    first, second = halves(given, 3)
    said = probabilities(made.parameters, second.margins)
    called = said >= made.threshold
    assert (made.model_id, made.revision, made.position_zero) == ("model", "abc", "enc")
    assert (made.pairs, made.held_out_pairs) == (len(first), len(second)) == (10_000, 10_000)
    assert made.after.calibration_error == calibration_error(said, second.labels)
    own = np.array([sigmoid(margin) for margin in second.margins])
    assert made.before.calibration_error == calibration_error(own, second.labels)
    assert made.precision == pytest.approx(second.labels[called].mean())
    assert made.recall == pytest.approx(called[second.labels].mean())
    assert made.precision == pytest.approx(0.9, abs=0.02)
    text = report(made)
    assert "10,000 held-out pairs" in text
    assert f"{made.before.calibration_error:.4f}" in text


def test_given_images_with_several_pairs_then_each_is_in_one_half_that_a_seed_draws() -> None:
    given = scores(1_000, sigmoidal, each=7)
    first, second = halves(given, 0)
    assert not set(first.images) & set(second.images)
    assert sorted([*first.margins, *second.margins]) == sorted(given.margins)
    assert list(halves(given, 0)[0].images) == list(first.images)
    assert list(halves(given, 1)[0].images) != list(first.images)


@pytest.mark.parametrize(
    ("pairs", "curve", "each", "complaint"),
    [
        (30, sigmoidal, 2, "needs 20 images and more, not 15"),
        (300, sigmoidal, 20, "needs 20 images and more, not 15"),
        (300, np.ones_like, 2, "too few pairs are labelled not matching: 0 of 300"),
        (300, np.zeros_like, 2, "too few pairs are labelled matching: 0 of 300"),
        (60, sigmoidal, 2, "Each half of the images needs 20 such pairs"),
        (400, lambda margins: 1 - sigmoidal(margins), 2, "score no higher than pairs that do not"),
    ],
)
@pytest.mark.parametrize("method", ["platt", "isotonic", "auto"])
def test_given_pairs_that_say_too_little_then_they_are_refused_in_one_sentence(
    pairs: int, curve: Curve, each: int, complaint: str, method: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        fitted(scores(pairs, curve, each=each), method=method)


@pytest.mark.parametrize(
    ("precision", "threshold"), [(0.5, 0.1), (0.6, 0.3), (0.75, 0.5), (0.9, 0.7)]
)
def test_given_a_wanted_precision_then_the_threshold_is_the_lowest_that_has_it(
    precision: float, threshold: float
) -> None:
    """Shares of matches from each threshold on: 0.5, 0.625, 0.8, 1."""
    said = np.repeat([0.1, 0.3, 0.5, 0.7], [60, 60, 40, 80])
    labels = np.concatenate([np.arange(60) < 8, np.arange(60) < 8, np.arange(40) < 24, np.ones(80)])
    share = {low: labels[said >= low].mean() for low in (0.1, 0.3, 0.5, 0.7)}
    assert [round(one, 2) for one in share.values()] == [0.5, 0.62, 0.87, 1.0]
    assert threshold_for(said, labels.astype(bool), precision) == threshold


def test_given_a_precision_out_of_reach_then_the_error_says_what_can_be_had() -> None:
    said = np.repeat([0.2, 0.8], [100, 100])
    labels = np.concatenate([np.arange(100) < 25, np.arange(100) < 75])
    with pytest.raises(ValueError, match=r"the most is 0\.750, which finds 75\.0% of the matches"):
        threshold_for(said, labels, 0.95)


def test_given_a_few_pairs_at_the_top_then_no_threshold_rests_on_them_alone() -> None:
    said = np.repeat([0.2, 0.8, 0.9], [100, 100, 19])
    labels = np.concatenate([np.arange(100) < 25, np.arange(100) < 75, np.ones(19)]).astype(bool)
    with pytest.raises(ValueError, match=r"the most is 0\.790"):
        threshold_for(said, labels, 0.95)


@pytest.mark.parametrize("precision", [0, 1, 1.5, -0.5])
def test_given_a_precision_that_is_no_share_then_it_is_refused(precision: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        fitted(scores(400, sigmoidal), precision=precision)


@pytest.mark.parametrize(
    ("said", "labels", "expected"),
    [
        ([0.5, 0.5], [0, 1], 0.0),
        ([0.9, 0.9], [1, 0], 0.4),
        ([0.0, 1.0], [0, 1], 0.0),
        ([0.0, 1.0], [1, 0], 1.0),
        # 0.41 and 0.45 share a bin, (6/15, 7/15]: |0.43 - 0.5|; 0.47 is in the next: |0.47 - 1|.
        ([0.41, 0.45, 0.47], [1, 0, 1], (2 * 0.07 + 0.53) / 3),
        # A bin's upper edge is its own.
        ([6 / 15, 0.41], [1, 0], (0.6 + 0.41) / 2),
    ],
)
def test_given_probabilities_then_the_calibration_error_is_the_mean_gap_of_15_bins(
    said: list[float], labels: list[int], expected: float
) -> None:
    assert calibration_error(np.array(said), np.array(labels, bool)) == pytest.approx(expected)
