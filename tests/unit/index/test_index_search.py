"""How hits are arranged by what ITM says of some of them, and shown."""

import json

import pytest

from producer.contract import ErrorCode, Ranked
from producer.index.search import Found, arranged
from producer.index.search_command import show
from producer.index.table import Hit

GONE = ErrorCode.HTTP_4XX


def hit(name: str, caption: str | None = None) -> Hit:
    return Hit(f"s3://b/{name}", caption, 0.5, None, None, None, None, None)


def ranked(place: int, score: float) -> Ranked:
    return Ranked(
        index=place, itc_cosine=0.5, itm_logit=score - 0.5, itm_probability=0.5, score=score
    )


@pytest.mark.parametrize(
    ("scores", "gone", "order"),
    [
        ({0: 1.0, 1: 2.0, 2: 3.0}, [], "cba"),
        ({0: 3.0, 1: 2.0, 2: 1.0}, [], "abc"),
        ({0: 1.0, 2: 3.0}, [1], "cba"),
        ({0: 1.0, 1: 3.0}, [2], "bac"),
        ({1: 1.0, 2: 3.0}, [0], "acb"),
        ({}, [0, 1, 2], "abc"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, [], "abc"),
    ],
)
def test_given_scores_of_some_hits_then_they_are_ordered_round_those_that_keep_their_place(
    scores: dict[int, float], gone: list[int], order: str
) -> None:
    found = arranged(
        [hit(name) for name in "abc"],
        {place: ranked(place, score) for place, score in scores.items()},
        dict.fromkeys(gone, GONE),
    )
    assert "".join(one.hit.image_ref[-1] for one in found) == order
    assert [place for place, one in enumerate(found) if one.code is GONE] == gone
    for one in found:
        if one.ranked is not None:
            assert "abc"[one.ranked.index] == one.hit.image_ref[-1]


def test_given_hits_then_programs_get_a_document_each(capsys: pytest.CaptureFixture[str]) -> None:
    show([Found(hit("a", "é"), ranked(0, 2.0)), Found(hit("b"), code=GONE)], as_json=True)

    one, other = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["rank"], one["caption"], one["score"], one["itm_logit"]) == (1, "é", 2.0, 1.5)
    assert (other["rank"], other["not_reranked"]) == (2, "http_4xx")
    assert "score" not in other


def test_given_a_caption_with_control_characters_or_markup_then_a_terminal_obeys_none_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show([Found(hit("a", "\x1b[2Ja [red]cat[/red]\r"))], as_json=False)

    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert "[red]cat[/red]" in shown


def test_given_no_hits_then_people_are_told_why(capsys: pytest.CaptureFixture[str]) -> None:
    show([], as_json=False)
    assert "filters" in capsys.readouterr().err
    show([], as_json=True)
    assert capsys.readouterr().out == ""
