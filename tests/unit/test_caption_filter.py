"""Which captions a filter refuses, and why."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.filtering import CaptionFilter
from worker.caption_filter import Weight, reasons, repeats, says

GOOD = "a small red circle"


@pytest.mark.parametrize(
    ("text", "weight", "rules", "why"),
    [
        pytest.param(GOOD, Weight(0.9), {}, (), id="good"),
        pytest.param(GOOD, Weight(0.5), {}, (), id="at the paper's threshold"),
        pytest.param(GOOD, Weight(0.49), {}, ("itm_probability",), id="below it"),
        pytest.param(GOOD, Weight(0.0), {"min_itm_probability": None}, (), id="none asked for"),
        pytest.param(
            GOOD,
            Weight(0.9, 0.3),
            {"min_calibrated_probability": 0.4},
            ("calibrated_probability",),
            id="below what is asked of the calibrated one",
        ),
        pytest.param(
            GOOD,
            Weight(0.9, 0.69),
            {"min_calibrated_probability": "threshold"},
            ("calibrated_probability",),
            id="below the calibration's own threshold",
        ),
        pytest.param(
            GOOD, Weight(0.9, 0.7), {"min_calibrated_probability": "threshold"}, (), id="at it"
        ),
        pytest.param(GOOD, Weight(0.9), {"banned_words": ("red",)}, ("banned_word",), id="banned"),
        pytest.param(
            "a cat and a cat and a cat",
            Weight(0.1),
            {"banned_words": ("A  Cat",)},
            ("itm_probability", "banned_word", "repetition"),
            id="all at once",
        ),
        pytest.param(
            "star star star", Weight(0.9), {"refuse_repetition": False}, (), id="may repeat"
        ),
    ],
)
def test_given_a_caption_and_rules_then_every_reason_to_refuse_it_is_named(
    text: str, weight: Weight, rules: dict[str, Any], why: tuple[str, ...]
) -> None:
    assert reasons(text, weight, CaptionFilter(**rules), threshold=0.7) == why


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("a red circle", "red", True),
        ("a Red circle", "rED", True),
        ("a bored circle", "red", False),
        ("red-hot", "red", True),
        ("a red  circle", "red circle", True),
        ("a (red) circle", "(red)", True),
        ("straße", "STRASSE", True),
        ("cafe\u0301", "café", True),
        ("一个红色的圆", "红色", True),
        ("สุนัขวิ่งบนหญ้า", "สุนัข", True),
        ("สุนัขวิ่งบนหญ้า", "แมว", False),
        ("一个红色的圆", "蓝色", False),
    ],
)
def test_given_a_banned_phrase_then_whole_words_count_whatever_their_case_and_script(
    text: str, phrase: str, found: bool
) -> None:
    assert says(text, phrase) is found


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("", False),
        ("a very very small star", False),
        ("a very very very small star", True),
        ("a small red circle left of a small red square", False),
        ("a small red circle a small red circle", True),
        ("on the on the table", True),
        ("A dog a dog", True),
        ("一只狗和一只狗和一只狗", True),
        ("一只狗一只狗", True),
        ("红色红色红色", True),
        ("一个一个的圆形", False),
        ("一个红色的圆形在一个红色的正方形的左边", False),
    ],
)
def test_given_a_text_then_words_twice_in_a_row_and_a_word_three_times_are_repetition(
    text: str, repeated: bool
) -> None:
    assert repeats(text) is repeated


@given(st.lists(st.sampled_from("ab"), max_size=8), st.lists(st.sampled_from("cd"), min_size=2))
def test_given_a_phrase_that_is_said_twice_then_it_is_repetition_wherever_it_stands(
    before: list[str], phrase: list[str]
) -> None:
    assert repeats(" ".join([*before, *phrase, *phrase]))
