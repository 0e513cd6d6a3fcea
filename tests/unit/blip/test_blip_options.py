"""Options validate themselves."""

from typing import Any

import pytest

from worker.blip import CaptionOptions


def test_given_no_options_then_they_are_the_papers() -> None:
    options = CaptionOptions()
    assert (options.num_beams, options.max_new_tokens, options.min_new_tokens) == (3, 20, 5)
    assert (options.length_penalty, options.early_stopping, options.prompt) == (1.0, False, None)


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
