"""Which images of a batch are decoded together."""

import pytest

from tests.blip_checkpoints import noise_images
from worker.blip import CaptionOptions, Engine, rows
from worker.blip.rows import groups

GREEDY = CaptionOptions(num_beams=1)
BEAMS = CaptionOptions()
SAMPLES = CaptionOptions(do_sample=True, num_return_sequences=4)
LONG = CaptionOptions(num_beams=10, max_new_tokens=500)  # 5,001 columns
SHORT = CaptionOptions(num_beams=10)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], []),
        ([GREEDY], [[0]]),
        ([BEAMS, GREEDY, BEAMS, SAMPLES, GREEDY], [[0, 2], [1, 4], [3]]),
        ([GREEDY, CaptionOptions(do_sample=True)], [[0, 1]]),
        ([LONG] * 8, [[0, 1, 2, 3, 4, 5], [6, 7]]),
        ([SHORT, LONG, *[SHORT] * 5], [[0, 1, 2, 3, 4, 5], [6]]),
        ([SHORT] * 64, [list(range(64))]),
    ],
)
def test_given_rows_then_those_of_one_shape_are_together_while_their_caches_are_small(
    options: list[CaptionOptions], expected: list[list[int]]
) -> None:
    assert groups(options, [1] * len(options)) == expected


def test_given_caches_that_are_too_large_together_then_each_row_is_as_it_was(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise_images(5)
    together = tiny_engine.caption(images)
    monkeypatch.setattr(rows, "MOST_COLUMNS", 2 * (1 + 3 * 20))
    assert groups([BEAMS] * 5, [1] * 5) == [[0, 1], [2, 3], [4]]
    apart = tiny_engine.caption(images)
    assert [row[0].token_ids for row in apart] == [row[0].token_ids for row in together]
