"""Options validate themselves."""

from typing import Any

import pytest

from worker.blip import CaptionOptions


def test_given_no_options_then_they_are_the_papers() -> None:
    options = CaptionOptions()
    assert (options.num_beams, options.max_new_tokens, options.min_new_tokens) == (3, 20, 5)
    assert (options.length_penalty, options.early_stopping, options.prompt) == (1.0, False, None)


@pytest.mark.parametrize(("most", "fewest"), [(1, 1), (4, 4), (5, 5), (511, 5)])
def test_given_the_most_tokens_alone_then_the_fewest_are_five_or_as_many(
    most: int, fewest: int
) -> None:
    assert CaptionOptions(max_new_tokens=most).min_new_tokens == fewest


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"num_beams": 0}, "num_beams must be 1 to 10, not 0"),
        ({"num_beams": 11}, "num_beams must be 1 to 10, not 11"),
        ({"num_beams": 2.0}, "num_beams must be a whole number, not 2.0"),
        ({"num_beams": True}, "num_beams must be a whole number, not True"),
        ({"num_return_sequences": 0}, "num_return_sequences must be 1 to num_beams"),
        ({"num_return_sequences": 4}, "num_return_sequences must be 1 to num_beams"),
        ({"max_new_tokens": 0, "min_new_tokens": 0}, "max_new_tokens must be 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, not 0"),
        ({"max_new_tokens": -3}, "max_new_tokens must be 1 or more, not -3"),
        ({"max_new_tokens": None}, "max_new_tokens must be a whole number, not None"),
        ({"min_new_tokens": 2.5}, "min_new_tokens must be a whole number, not 2.5"),
        ({"max_new_tokens": 4, "min_new_tokens": 5}, r"0 to max_new_tokens \(4\), not 5"),
        ({"min_new_tokens": -1}, "min_new_tokens must be 0 to max_new_tokens"),
        ({"min_new_tokens": 21}, "min_new_tokens must be 0 to max_new_tokens"),
        ({"length_penalty": float("nan")}, "length_penalty must be"),
        ({"length_penalty": 99.0}, "length_penalty must be"),
        ({"early_stopping": "always"}, "early_stopping must be"),
    ],
    ids=str,
)
def test_given_a_value_out_of_range_then_the_error_names_the_option(
    names: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionOptions(**names)
