"""Distributions, quantiles and the worst of many scores, in bounded memory."""

import random
import statistics
from typing import Any

import pytest

from producer.validation.scores import Scored
from producer.validation.tally import BINS, QUANTILES, WORST, Bins, Tally


def scored(index: int, itm: float, itc: float = 0.0, **fields: Any) -> Scored:
    own: dict[str, Any] = {
        "image": f"{index}.jpg", "caption": f"caption {index}",
        "uri": f"https://a.example/{index}.jpg", "format": "JPEG", "score": itm + itc,
        "calibrated_probability": None, "decision": None,
    }  # fmt: skip
    return Scored(index=index, itm_probability=itm, itc_cosine=itc, **own | fields)


def tally(*pairs: Scored, min_itm: float = 0.5) -> Tally:
    one = Tally(min_itm)
    one.add(pairs)
    return one


@pytest.mark.parametrize(
    ("value", "place"), [(-0.1, 0), (0.0, 0), (0.4999, 499), (0.5, 500), (1.0, 999), (1.1, 999)]
)
def test_given_a_number_then_it_is_counted_in_its_bin_and_none_is_lost(
    value: float, place: int
) -> None:
    bins = Bins(0, 1)
    bins.add(value)

    assert [n for n, count in enumerate(bins.counts) if count] == [place]


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_given_many_numbers_then_quantiles_are_right_to_a_bin(low: float) -> None:
    rng = random.Random(1)
    values = [low + (1 - low) * rng.random() ** 3 for _ in range(5_000)]
    bins = Bins(low, 1)
    for value in values:
        bins.add(value)

    exact = statistics.quantiles(values, n=100, method="inclusive")
    width = (1 - low) / BINS
    for share in QUANTILES:
        assert bins.quantile(share) == pytest.approx(exact[round(share * 100) - 1], abs=2 * width)
    counts, edges = bins.merged(50)
    assert (sum(counts), len(edges), edges[0], edges[-1]) == (5_000, 51, low, pytest.approx(1))


def test_given_no_numbers_then_there_is_no_quantile() -> None:
    assert Bins(0, 1).quantile(0.5) is None


def test_given_more_pairs_than_are_kept_then_the_worst_are_and_lowest_come_first() -> None:
    rng = random.Random(2)
    pairs = [scored(n, round(rng.random(), 2), rng.random()) for n in range(2_000)]

    worst = tally(*pairs).worst

    ranked = sorted(pairs, key=lambda p: (p.itm_probability, p.itc_cosine, p.index))
    assert list(worst) == ranked[:WORST]


def test_given_a_threshold_then_those_below_it_are_counted_and_those_at_it_are_not() -> None:
    one = tally(scored(0, 0.2), scored(1, 0.5), scored(2, 0.9), min_itm=0.5)

    assert (one.pairs, one.below) == (3, 1)
    assert one.document()["below"] == 1
    assert one.words().startswith("1 of 3 (33.3%) below 0.5\n  itm_probability  5% 0.2")


def test_given_no_pair_with_a_score_then_that_is_said() -> None:
    one = tally()

    assert one.words() == "No pair could be weighed."
    assert one.document()["quantiles"]["itm_probability"]["0.50"] is None
