"""Calibrations as they are stored, found and applied."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.calibration import (
    FILE_NAME,
    Calibration,
    CalibrationError,
    CalibrationMismatch,
    Figures,
    Isotonic,
    Platt,
    find,
    kept_at,
    sigmoid,
)

FIGURES = Figures(roc_auc=0.9, average_precision=0.9, calibration_error=0.1, log_loss=0.5)
CURVE = Isotonic(margins=(-2.0, 0.0, 1.0), probabilities=(0.1, 0.5, 0.9))


def calibration(**fields: Any) -> Calibration:
    return Calibration(
        **{
            "model_id": "org/model",
            "revision": "abc",
            "position_zero": "enc",
            "parameters": Platt(slope=0.5, intercept=-1.0),
            "threshold": 0.4,
            "wanted_precision": 0.95,
            "pairs": 100,
            "held_out_pairs": 100,
            "before": FIGURES,
            "after": FIGURES,
            "precision": 0.95,
            "recall": 0.8,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("curve", "margin", "expected"),
    [
        (Platt(slope=1.0, intercept=0.0), 0.7, sigmoid(0.7)),
        (Platt(slope=0.5, intercept=-1.0), 2.0, 0.5),
        (Platt(slope=0.5, intercept=-1.0), -1e6, 0.0),
        (Platt(slope=0.5, intercept=-1.0), 1e6, 1.0),
        (CURVE, -9.0, 0.1),
        (CURVE, -2.0, 0.1),
        (CURVE, -1.0, 0.3),
        (CURVE, 0.0, 0.5),
        (CURVE, 0.75, 0.8),
        (CURVE, 1.0, 0.9),
        (CURVE, 9.0, 0.9),
        (Isotonic(margins=(3.0,), probabilities=(0.2,)), 3.0, 0.2),
    ],
)
def test_given_a_curve_then_a_margin_has_its_probability(
    curve: Platt | Isotonic, margin: float, expected: float
) -> None:
    assert calibration(parameters=curve).probability(margin) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("probability", "decision"), [(0.39, "no_match"), (0.4, "match"), (1.0, "match")]
)
def test_given_a_threshold_then_a_probability_that_reaches_it_is_a_match(
    probability: float, decision: str
) -> None:
    assert calibration().decision(probability) == decision


@pytest.mark.parametrize("curve", [Platt(slope=0.123456789012345, intercept=-1 / 3), CURVE])
def test_given_a_saved_calibration_when_loaded_then_it_is_the_same(
    tmp_path: Path, curve: Platt | Isotonic
) -> None:
    path = tmp_path / "new" / FILE_NAME
    made = calibration(parameters=curve)
    calibration(threshold=0.1).save(path)
    made.save(path)
    assert Calibration.load(path) == made
    assert [one.name for one in path.parent.iterdir()] == [FILE_NAME]
    assert json.loads(path.read_text())["parameters"]["method"] == curve.method


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 2}, "version: "),
        ({"threshold": 1.5}, "threshold: "),
        ({"threshold": float("nan")}, "threshold: "),
        ({"revision": None}, "revision: "),
        ({"score": "itc_cosine"}, "score: "),
        ({"parameters": {"method": "beta"}}, "parameters: "),
        ({"parameters": {"method": "platt", "slope": 0, "intercept": 0}}, "parameters.platt.slope"),
        (
            {"parameters": {"method": "isotonic", "margins": [0, 0], "probabilities": [0, 1]}},
            "margins must rise",
        ),
        (
            {"parameters": {"method": "isotonic", "margins": [0, 1], "probabilities": [1, 0]}},
            "probabilities must not fall",
        ),
        (
            {"parameters": {"method": "isotonic", "margins": [0, 1], "probabilities": [1]}},
            "as many probabilities as margins",
        ),
    ],
)
def test_given_a_file_that_says_what_none_can_when_loaded_then_the_error_names_file_and_field(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps({**calibration().model_dump(), **change}))
    with pytest.raises(CalibrationError) as raised:
        Calibration.load(path)
    assert str(raised.value).startswith(f"{path} is no calibration: ")
    assert complaint in str(raised.value)


def test_given_a_file_that_is_no_json_when_loaded_then_it_is_a_calibration_error(
    tmp_path: Path,
) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"\xff{")
    with pytest.raises(CalibrationError, match="Make it anew"):
        Calibration.load(path)


def test_given_another_revision_then_the_refusal_names_both_and_what_to_do() -> None:
    calibration().check("renamed", "abc")
    with pytest.raises(CalibrationMismatch) as raised:
        calibration().check("org/model", "def")
    for words in ("org/model at revision abc", "org/model at def", "captionq-worker calibrate"):
        assert words in str(raised.value)


def test_given_calibrations_at_home_and_beside_the_model_then_the_one_at_home_is_found(
    tmp_path: Path,
) -> None:
    folder, home = tmp_path / "model", tmp_path / "home"
    own, shipped = calibration(threshold=0.7), calibration(threshold=0.3)
    assert find(folder, home, "org/model", "abc") is None
    shipped.save(folder / FILE_NAME)
    assert find(folder, home, "org/model", "abc") == shipped
    assert find(None, home, "org/model", "abc") is None
    own.save(kept_at(home, "org/model", "abc"))
    assert find(folder, home, "org/model", "abc") == own
    assert find(None, home, "org/model", "abc") == own


def test_given_a_model_whose_weights_have_changed_then_the_calibration_beside_it_is_refused(
    tmp_path: Path,
) -> None:
    calibration().save(tmp_path / FILE_NAME)
    with pytest.raises(CalibrationMismatch):
        find(tmp_path, tmp_path / "home", "org/model", "def")
