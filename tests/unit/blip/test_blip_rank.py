"""Two stages: ITC cosines for every text, ITM for the shortlist alone."""

from typing import Any

import pytest
import torch

from tests.blip_checkpoints import noise_images
from worker.blip import Engine, Match
from worker.blip.matching import Matcher
from worker.blip.scoring import alike, batches, shortlists

TEXTS = ["a b c", "word7", "c", "word8 word9 word10 word11 e", "f g"]


@pytest.mark.parametrize("position_zero", [None, "cls"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_given_a_shortlist_of_k_then_its_matches_are_matchs_and_the_others_have_none(
    tiny_engine: Engine, k: int, position_zero: str | None
) -> None:
    images = noise_images(3)
    ranked = tiny_engine.rank(images, TEXTS, k, position_zero)
    matched = tiny_engine.match(images, TEXTS, position_zero)
    for row, expected in zip(ranked, matched, strict=True):
        assert [one.text for one in row] == TEXTS
        cosines = [match.itc_cosine for match in expected]
        assert [one.itc_cosine for one in row] == pytest.approx(cosines, abs=1e-6)
        best = sorted(range(len(TEXTS)), key=lambda place: -cosines[place])[:k]
        assert [place for place, one in enumerate(row) if one.match] == sorted(best)
        for place in best:
            same_match(row[place].match, expected[place])


def test_given_as_many_texts_as_k_or_fewer_then_all_are_matched(tiny_engine: Engine) -> None:
    images = noise_images(2)
    for k in (len(TEXTS), 1000):
        for row, expected in zip(
            tiny_engine.rank(images, TEXTS, k), tiny_engine.match(images, TEXTS), strict=True
        ):
            for one, match in zip(row, expected, strict=True):
                same_match(one.match, match)


def test_given_lists_of_many_lengths_then_each_image_has_its_own_shortlist(
    tiny_engine: Engine,
) -> None:
    images, texts = noise_images(3), [TEXTS[:1], [], [*TEXTS, "a b c"]]
    ranked = tiny_engine.rank(images, texts, 2)
    assert [[one.text for one in row] for row in ranked] == texts
    assert [sum(one.match is not None for one in row) for row in ranked] == [1, 0, 2]
    [alone] = tiny_engine.rank(images[2], [texts[2]], 2)
    for one, other in zip(ranked[2], alone, strict=True):
        assert (one.match is None) == (other.match is None)
        if one.match is not None:
            same_match(one.match, other.match)


def test_given_token_ids_then_ranked_texts_are_their_words(tiny_engine: Engine) -> None:
    token_ids = [tiny_engine._tokenizer.text(text) for text in ("a b", "word7")]
    [row] = tiny_engine.rank(noise_images(1), token_ids, 1)
    assert [one.text for one in row] == ["a b", "word7"]


def test_given_a_match_then_its_score_is_the_paper_s_and_its_margin_the_probability_s_logit(
    tiny_engine: Engine,
) -> None:
    [[match]] = tiny_engine.match(noise_images(1), ["a b"])
    assert match.score == match.itm_logit + match.itc_cosine
    probability = torch.tensor(match.itm_margin).sigmoid().item()
    assert probability == pytest.approx(match.itm_probability, abs=1e-6)


def test_given_many_images_and_one_list_then_each_text_is_read_once(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    words = tiny_engine._tokenizer.text
    monkeypatch.setattr(
        tiny_engine._tokenizer, "text", lambda text: read.append(text) or words(text)
    )
    tiny_engine.rank(noise_images(4), TEXTS, 1)
    assert read == TEXTS


@pytest.mark.parametrize(
    ("cosines", "count", "k", "best"),
    [
        ([0.1, 0.3, 0.2], 3, 2, [1, 2]),
        ([0.1, 0.3, 0.9], 2, 2, [1, 0]),
        ([0.1, 0.3, 0.9], 2, 5, [1, 0]),
        ([0.1, 0.3, 0.9], 0, 5, []),
    ],
)
def test_a_shortlist_is_the_highest_of_the_columns_that_count(
    cosines: list[float], count: int, k: int, best: list[int]
) -> None:
    assert shortlists(torch.tensor([cosines]), [count], k) == [best]


@pytest.mark.parametrize(
    ("widths", "most", "pads", "tokens", "parts"),
    [
        ([], 4, 9, 999, []),
        ([7], 4, 0, 999, [1]),
        ([3, 3, 3, 3, 3], 2, 9, 999, [2, 2, 1]),
        ([3, 3, 5, 5], 4, 3, 999, [2, 2]),
        ([3, 3, 5, 5], 4, 4, 999, [4]),
        ([3, 4, 5], 4, 2, 999, [2, 1]),
        ([3, 4, 5], 4, 3, 999, [3]),
        ([3, 3, 3, 60], 4, 32, 999, [3, 1]),
        ([3, 60, 60], 1, 99, 999, [1, 1, 1]),
        ([3, 3, 3, 3, 3], 9, 9, 7, [2, 2, 1]),
        ([3, 4, 5, 60, 60], 9, 9, 15, [3, 1, 1]),
    ],
)
def test_texts_share_a_forward_until_it_is_full_or_a_longer_one_would_cost_too_many_pads(
    widths: list[int], most: int, pads: int, tokens: int, parts: list[int]
) -> None:
    found = batches(widths, most, pads, tokens)
    assert [part.stop - part.start for part in found] == parts
    assert [place for part in found for place in range(len(widths))[part]] == [*range(len(widths))]


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([], []),
        ([[]], []),
        ([[5], [3], [4]], [[0, 1, 2]]),
        ([[3, 4], [], [4, 3]], [[0, 2]]),
        ([[500], [5], [6], [5]], [[1, 2, 3], [0]]),
        ([[9] * 200, [9], [9] * 190, [9]], [[1, 3], [0, 2]]),
        ([[1, 90], [45, 46]], [[0, 1]]),
    ],
)
def test_rows_share_a_rectangle_that_is_at_most_twice_what_they_have(
    lengths: list[list[int]], groups: list[list[int]]
) -> None:
    assert alike(lengths) == groups


def test_given_an_image_with_many_texts_among_others_then_these_cost_no_more_and_all_are_right(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [*noise_images(3, size=(150, 100)), *noise_images(2, size=(160, 160))]
    texts = [
        ["a b"],
        [f"word{n % 9} " * 20 for n in range(60)],
        [],
        ["c", "word7"],
        ["word1 " * 90],
    ]
    alone = [tiny_engine.match(images[i], [texts[i]], mode="native")[0] for i in range(5)]
    read = []
    logits = Matcher.itm_logits

    def counted(self: Matcher, cross: Any, token_ids: Any, *masks: Any) -> Any:
        read.append(token_ids.numel())
        return logits(self, cross, token_ids, *masks)

    monkeypatch.setattr(Matcher, "itm_logits", counted)
    together = tiny_engine.match(images, texts, mode="native")
    own = sum(len(tiny_engine.token_ids(text)) for row in texts for text in row)
    assert sum(read) <= 2 * own
    for row, expected in zip(together, alone, strict=True):
        for ours, theirs in zip(row, expected, strict=True):
            same_match(ours, theirs)


def same_match(ours: Match | None, expected: Match | None) -> None:
    assert ours is not None
    assert expected is not None
    assert ours.text == expected.text
    assert ours.itm_logits == pytest.approx(expected.itm_logits, abs=1e-4)
    assert ours.itm_probability == pytest.approx(expected.itm_probability, abs=1e-4)
    assert ours.itc_cosine == pytest.approx(expected.itc_cosine, abs=1e-6)
