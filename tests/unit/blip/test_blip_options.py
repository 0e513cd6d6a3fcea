"""Options validate themselves."""

from typing import Any

import pytest

from worker.blip import REFERENCE, CaptionOptions


def test_given_no_options_then_they_are_the_papers() -> None:
    options = CaptionOptions()
    assert options == REFERENCE
    assert not options.do_sample
    assert (options.repetition_penalty, options.no_repeat_ngram_size) == (1.0, 0)
    assert (options.bad_words, options.stop_strings, options.max_chars) == ((), (), None)
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
        ({"do_sample": 1}, "do_sample must be true or false"),
        ({"do_sample": True, "num_beams": 2}, "do_sample takes num_beams 1, not 2"),
        (
            {"do_sample": True, "num_return_sequences": 11},
            "num_return_sequences must be 1 to 10, not 11",
        ),
        ({"temperature": 0.5}, "temperature needs do_sample"),
        ({"top_k": 5}, "top_k needs do_sample"),
        ({"top_p": 0.5}, "top_p needs do_sample"),
        ({"min_p": 0.5}, "min_p needs do_sample"),
        ({"seed": 5}, "seed needs do_sample"),
        ({"do_sample": True, "temperature": 0}, "temperature must be 0.01 to 100, not 0"),
        ({"do_sample": True, "temperature": "1"}, "temperature must be"),
        ({"do_sample": True, "top_p": 1.1}, "top_p must be 0 to 1, not 1.1"),
        ({"do_sample": True, "min_p": float("nan")}, "min_p must be 0 to 1, not nan"),
        ({"do_sample": True, "top_k": -1}, r"top_k must be 0 \(off\) or more, not -1"),
        ({"do_sample": True, "top_k": 1.0}, "top_k must be a whole number"),
        ({"do_sample": True, "seed": -1}, "seed must be 0 to"),
        ({"do_sample": True, "seed": 2**53}, "seed must be 0 to"),
        ({"repetition_penalty": 0}, "repetition_penalty must be 0.01 to 100, not 0"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size must be 0"),
        ({"no_repeat_ngram_size": True}, "no_repeat_ngram_size must be a whole number"),
        ({"whole_words": 1}, "whole_words must be true or false: 1"),
        ({"max_chars": 0}, "max_chars must be 1 or more, not 0"),
        ({"max_chars": 2.5}, "max_chars must be a whole number"),
        ({"stop_strings": "."}, "stop_strings is a list of texts, not one text"),
        ({"stop_strings": [""]}, "stop_strings holds texts of 1 to 64, not ''"),
        ({"stop_strings": [[1]]}, "stop_strings holds texts"),
        ({"stop_strings": ["a" * 65]}, "stop_strings holds texts of 1 to 64"),
        ({"stop_strings": ["a"] * 65}, "stop_strings holds at most 64 texts"),
        ({"bad_words": "cat"}, "bad_words is a list of texts"),
        ({"bad_words": [" "]}, "bad_words holds texts"),
        ({"bad_words": [[]]}, "bad_words holds texts or token ids of 1 to 64"),
        ({"bad_words": [["cat"]]}, "bad_words holds texts or token ids"),
        ({"bad_words": [7]}, "bad_words holds texts or token ids"),
        ({"bad_words": None}, "bad_words is a list of texts, not one text: None"),
    ],
    ids=str,
)
def test_given_a_value_out_of_range_then_the_error_names_the_option(
    names: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionOptions(**names)


def test_given_sampling_then_there_is_one_beam_and_a_row_is_as_wide_as_its_samples() -> None:
    options = CaptionOptions(do_sample=True, num_return_sequences=4)
    assert (options.num_beams, options.num_samples, options.width) == (1, 4, 4)
    options = CaptionOptions(num_return_sequences=2)
    assert (options.num_beams, options.num_samples, options.width) == (3, 1, 3)


def test_given_lists_then_options_keep_tuples_and_can_be_compared() -> None:
    options = CaptionOptions(stop_strings=["."], bad_words=["a", [7, 8]])
    assert options == CaptionOptions(stop_strings=(".",), bad_words=("a", (7, 8)))
    assert hash(options) == hash(CaptionOptions(stop_strings=(".",), bad_words=("a", (7, 8))))
