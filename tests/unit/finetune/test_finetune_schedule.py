"""What depends on the step alone, and which settings there are."""

from collections import Counter
from typing import Any

import pytest

from worker.training.finetune.schedule import Stream, share_of_rate, step_seed
from worker.training.finetune.settings import Settings

RATES = {
    "the first step of a warm-up": (0, 100, 10, 0.1),
    "the last one": (9, 100, 10, 1.0),
    "after it": (10, 100, 10, 1.0),
    "half the way down": (55, 100, 10, 0.5),
    "without a warm-up": (0, 100, 0, 1.0),
    "nearly done": (99, 100, 0, 0.000247),
    "a single step": (0, 1, 0, 1.0),
}


@pytest.mark.parametrize(("step", "steps", "warmup", "share"), RATES.values(), ids=RATES)
def test_the_rate_rises_in_a_line_and_falls_along_a_cosine(
    step: int, steps: int, warmup: int, share: float
) -> None:
    assert share_of_rate(step, steps, warmup) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(("rows", "size"), [(10, 4), (3, 8), (7, 7), (1, 2)])
def test_every_row_comes_as_often_as_every_other(rows: int, size: int) -> None:
    stream = Stream(rows, size, seed=5)

    seen = Counter(row for step in range(rows) for row in stream.at(step).tolist())

    assert set(seen) == set(range(rows))
    assert set(seen.values()) == {size}


def test_the_rows_of_a_step_follow_from_the_seed_whatever_came_before() -> None:
    walked = Stream(100, 16, seed=5)
    steps = [walked.at(step).tolist() for step in range(40)]

    assert Stream(100, 16, seed=5).at(39).tolist() == steps[39]
    assert Stream(100, 16, seed=6).at(39).tolist() != steps[39]
    assert steps[0] != sorted(steps[0])


def test_each_part_of_each_step_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(0, step, part, process) for step in range(9) for part in (0, 1)
             for process in (0, 1)}  # fmt: skip

    assert len(seeds) == 36
    assert step_seed(1, 0, 0, 0) not in seeds


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rank of nothing": ({"rank": 0}, "--rank"),
    "no rate": ({"rate": 0.0}, "--rate"),
    "all of it dropped": ({"dropout": 1.0}, "--dropout"),
    "a warm-up without end": ({"warmup": 1.0}, "--warmup"),
    "no room for a word": ({"max_tokens": 2}, "--max-tokens"),
    "a pattern that is none": ({"targets": "("}, "--targets"),
    "targets of a full run": ({"targets": "x", "full": True}, "--full"),
    "steps that are none": ({"steps": 0}, "--steps"),
    "negative patience": ({"patience": -1}, "--patience"),
}


@pytest.mark.parametrize(("given", "flag"), REFUSED.values(), ids=REFUSED)
def test_settings_that_cannot_be_are_refused_by_the_flags_name(
    given: dict[str, Any], flag: str
) -> None:
    with pytest.raises(ValueError, match=flag):
        Settings(**given)


def test_epochs_are_steps_of_as_many_rows_as_a_step_takes() -> None:
    assert Settings(epochs=3, batch=4, accumulate=2).steps_of(80) == 30
    assert Settings(epochs=1, batch=64).steps_of(3) == 1
    assert Settings(epochs=3, steps=7).steps_of(80) == 7
