"""Calibrations fitted from scores with scikit-learn, and what they are worth on unseen pairs.

Without scikit-learn the import raises NotInstalled.
"""

import random
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from producer.manifest.parquet import NotInstalled
from worker.calibration import (
    Calibration,
    Figures,
    Isotonic,
    Platt,
    PositionZero,
    sigmoid,
)
from worker.training.scores import Scores

try:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import (
        average_precision_score,
        log_loss,
        precision_recall_curve,
        precision_score,
        recall_score,
        roc_auc_score,
    )
    from sklearn.model_selection import GroupKFold
except ModuleNotFoundError as exc:
    raise NotInstalled(
        "Fitting a calibration needs scikit-learn: pip install 'captionq[calibrate]'"
    ) from exc

MIN_IMAGES = 20
MIN_EACH = 20
"""Fewest pairs of each label in each half."""
MIN_CALLED = 20
"""Fewest pairs that a threshold has to call a match: of fewer, precision is luck."""
BINS = 15
FOLDS = 5
BACKWARDS = (
    "pairs that match score no higher than pairs that do not: are the labels the wrong way round, "
    "or is this not the model for such images?"
)

Method = Literal["auto", "platt", "isotonic"]
Curve = Platt | Isotonic
Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


def fit(
    scores: Scores,
    *,
    model_id: str,
    revision: str,
    position_zero: PositionZero,
    method: Method = "auto",
    precision: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Fit on half of the images, measure on the others; an image's pairs stay together.

    method: "auto" takes what has the lower log loss in a cross-validation by image within the first
    half. precision: wanted of what is called a match; it decides the threshold.

    Raises:
        ValueError: the pairs are too few, of one label, or ranked backwards; or no threshold has
            the precision, and the message says what has the most.
    """
    if not 0 < precision < 1:
        raise ValueError(f"the wanted precision must be between 0 and 1, not {precision:g}")
    fitted, held_out = halves(scores, seed)
    curve = _chosen(fitted, method, seed)
    threshold = threshold_for(probabilities(curve, fitted.margins), fitted.labels, precision)
    own = np.array([sigmoid(margin) for margin in held_out.margins.tolist()])
    calibrated = probabilities(curve, held_out.margins)
    called = calibrated >= threshold
    return Calibration(
        model_id=model_id,
        revision=revision,
        position_zero=position_zero,
        parameters=curve,
        threshold=threshold,
        wanted_precision=precision,
        pairs=len(fitted),
        held_out_pairs=len(held_out),
        before=figures(own, held_out.labels),
        after=figures(calibrated, held_out.labels),
        precision=float(precision_score(held_out.labels, called, zero_division=0)),
        recall=float(recall_score(held_out.labels, called)),
    )


def halves(scores: Scores, seed: int) -> tuple[Scores, Scores]:
    """The scores of half of the images, drawn by `seed`, and those of the others.

    Raises ValueError when a half would have too few images or labels to say anything.
    """
    numbers = sorted(set(scores.images.tolist()))
    if len(numbers) < MIN_IMAGES:
        raise ValueError(f"a calibration needs {MIN_IMAGES} images and more, not {len(numbers)}")
    drawn = random.Random(seed).sample(numbers, len(numbers) // 2)
    first = np.isin(scores.images, drawn)
    parts = scores.where(first), scores.where(~first)
    least = {
        "matching": min(int(part.labels.sum()) for part in parts),
        "not matching": min(int((~part.labels).sum()) for part in parts),
    }
    for which, count in least.items():
        if count < MIN_EACH:
            total = int((scores.labels == (which == "matching")).sum())
            raise ValueError(
                f"too few pairs are labelled {which}: {total} of {len(scores)}. Each half of the "
                f"images needs {MIN_EACH} such pairs; about {4 * MIN_EACH} in all are safe"
            )
    return parts


def platt(scores: Scores) -> Platt:
    """Platt's sigmoid, unregularised but for his targets, which keep separable pairs finite.

    Platt 1999, "Probabilistic outputs for support vector machines": a pair that matches counts as
    (P + 1) / (P + 2) of a match where there are P of them, others as 1 / (N + 2).
    """
    matching = int(scores.labels.sum())
    others = len(scores) - matching
    target = np.where(scores.labels, (matching + 1) / (matching + 2), 1 / (others + 2))
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10_000).fit(
        np.tile(scores.margins, 2)[:, None],
        np.repeat([1, 0], len(scores)),
        np.concatenate([target, 1 - target]),
    )
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        raise ValueError(BACKWARDS)
    return Platt(slope=slope, intercept=intercept)


def isotonic(scores: Scores) -> Isotonic:
    """The rising curve nearest to the labels (Zadrozny and Elkan 2002).

    Probabilities end at 1 / (N + 2) from 0 and 1: N pairs make nothing certain.
    """
    end = 1 / (len(scores) + 2)
    model = IsotonicRegression(y_min=end, y_max=1 - end, out_of_bounds="clip")
    model.fit(scores.margins, scores.labels.astype(np.float64))
    if model.y_thresholds_[0] == model.y_thresholds_[-1]:
        raise ValueError(BACKWARDS)
    return Isotonic(
        margins=tuple(model.X_thresholds_.tolist()),
        probabilities=tuple(model.y_thresholds_.tolist()),
    )


METHODS: dict[str, Callable[[Scores], Curve]] = {"platt": platt, "isotonic": isotonic}


def _chosen(scores: Scores, method: Method, seed: int) -> Curve:
    if method == "auto":
        losses = {name: cross_validated_loss(scores, name, seed) for name in METHODS}
        return METHODS[min(losses, key=losses.__getitem__)](scores)
    return METHODS[method](scores)


def cross_validated_loss(scores: Scores, method: str, seed: int) -> float:
    """The log loss of pairs under curves fitted without their images, in nats a pair."""
    unseen = np.empty(len(scores))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(scores.margins, groups=scores.images):
        inside = np.zeros(len(scores), np.bool_)
        inside[train] = True
        unseen[test] = probabilities(METHODS[method](scores.where(inside)), scores.margins[test])
    return float(log_loss(scores.labels, unseen))


def probabilities(curve: Curve, margins: Floats) -> Floats:
    """What a served calibration would say of margins [N]."""
    return np.array([curve.probability(margin) for margin in margins.tolist()])


def threshold_for(probabilities: Floats, labels: Labels, precision: float) -> float:
    """The lowest threshold at which what reaches it is a match in `precision` of the cases.

    Raises ValueError, saying the highest precision there is, when none has it.
    """
    precisions, recalls, thresholds = precision_recall_curve(labels, probabilities)
    called = len(labels) - np.searchsorted(np.sort(probabilities), thresholds)
    precisions = np.where(called >= MIN_CALLED, precisions[:-1], 0)
    reached = np.flatnonzero(precisions >= precision)
    if not len(reached):
        best = int(precisions.argmax())
        raise ValueError(
            f"no threshold makes {precision:g} of what is called a match a match: the most is "
            f"{precisions[best]:.3f}, which finds {recalls[best]:.1%} of the matches. Ask for less "
            "with --precision"
        )
    return float(thresholds[reached[0]])


def figures(probabilities: Floats, labels: Labels) -> Figures:
    """What probabilities are worth beside labels."""
    return Figures(
        roc_auc=float(roc_auc_score(labels, probabilities)),
        average_precision=float(average_precision_score(labels, probabilities)),
        calibration_error=calibration_error(probabilities, labels),
        log_loss=float(log_loss(labels, probabilities)),
    )


def calibration_error(probabilities: Floats, labels: Labels, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017, equation 3).

    Of the probability of a match, where Guo has the confidence in the predicted class: the mean
    over all pairs of how far their bin's mean probability is from its share of matches.
    """
    index = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, probabilities - labels, bins)
    return float(np.abs(gaps).sum() / len(labels))


def report(calibration: Calibration) -> str:
    """The calibration and its figures, as lines."""
    before, after = calibration.before, calibration.after
    what = f"{calibration.parameters.method} for {calibration.model_id} at {calibration.revision}"
    lines = [
        f"{what}, fitted on {calibration.pairs:,} pairs",
        f"{f'{calibration.held_out_pairs:,} held-out pairs':<28}  before   after",
    ]
    for name, label in {
        "roc_auc": "ROC AUC",
        "average_precision": "average precision",
        "calibration_error": f"calibration error, {BINS} bins",
        "log_loss": "log loss",
    }.items():
        lines.append(f"{label:<28} {getattr(before, name):7.4f} {getattr(after, name):7.4f}")
    lines.append(
        f"a match from {calibration.threshold:.4f} on (precision {calibration.wanted_precision:g} "
        f"wanted): precision {calibration.precision:.4f}, recall {calibration.recall:.4f}"
    )
    return "\n".join(lines)
