"""What a map says, in words."""

import pytest

from worker.blip.explanation import METHODS, ExplainedWord
from worker.pictures.saying import METHODS_SAID, probability, said, where


@pytest.mark.parametrize(
    ("at", "place"),
    [
        ((0, 0), "upper left"),
        ((299, 0), "upper middle"),
        ((600, 0), "upper right"),
        ((100, 150), "middle left"),
        ((300, 150), "the middle"),
        ((899, 150), "middle right"),
        ((0, 300), "lower left"),
        ((450, 299), "lower middle"),
        ((900, 300), "lower right"),
    ],
)
def test_given_a_peak_then_its_ninth_of_the_image_is_named(
    at: tuple[float, float], place: str
) -> None:
    width = 900 if at[0] != 299 else 600
    assert where(at, width, 300) == place


def test_given_a_word_then_it_is_said_with_its_probability_if_it_was_predicted() -> None:
    assert (
        said(ExplainedWord("circle", 0, 0, -0.0726), (1, 1), 300, 300)
        == "circle: probability 0.93, looked at upper left"
    )
    matched = ExplainedWord("circle", 0, 0, None)
    assert said(matched, (150, 150), 300, 300) == "circle: looked at the middle"
    assert probability(matched) is None


def test_given_rounding_above_certainty_then_a_probability_stays_one() -> None:
    assert probability(ExplainedWord("a", 0, 0, 1e-7)) == 1


def test_every_method_is_named() -> None:
    assert set(METHODS_SAID) == set(METHODS)
