"""Degraded scenes, the calibration that they are to need, and the one beside the checkpoint."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import ImageChops, ImageStat
from typer.testing import CliRunner

from tests.full import FULL
from worker import cli
from worker.blip import Engine
from worker.calibration import FILE_NAME, Calibration
from worker.training.degraded import (
    LEAST_BEFORE,
    MOST_AFTER,
    ROC_AUC,
    degrade,
    drawn,
    evaluate_calibration,
    report,
    scored,
)
from worker.training.evaluate import BUNDLED
from worker.training.scenes import draw, sample


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more threads, and busy machines lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_given_a_seed_then_the_scenes_and_what_befalls_them_follow_from_it() -> None:
    def bytes_of(seed: str) -> list[tuple[bytes, str, str]]:
        return [(one.image.tobytes(), one.caption, one.false) for one in drawn(20, seed)]

    assert bytes_of("one") == bytes_of("one")
    assert bytes_of("one") != bytes_of("two")


def test_given_clean_scenes_then_they_are_those_that_are_degraded_otherwise() -> None:
    for clean, degraded in zip(drawn(20, clean=True), drawn(20), strict=True):
        assert clean.caption == degraded.caption
        assert clean.image.size == degraded.image.size == (96, 96)
        assert clean.image.tobytes() != degraded.image.tobytes()
        for one in (clean, degraded):
            assert one.false != one.caption


def test_given_an_image_then_it_is_degraded_in_three_ways_and_keeps_its_size() -> None:
    rng = random.Random("ways")
    image = draw(sample(rng))
    noise = set()
    for _ in range(30):
        worse = degrade(image, rng)
        assert (worse.size, worse.mode) == (image.size, "RGB")
        assert ImageStat.Stat(ImageChops.difference(worse, image)).sum != [0, 0, 0]
        colours = len(worse.getcolors(96 * 96) or [])
        noise.add(colours > 5_000)
    assert noise == {True, False}


@pytest.mark.skipif(not FULL, reason="4,000 pairs are calibrated by make test FULL=1")
def test_given_degraded_scenes_then_a_calibration_mends_what_probabilities_say() -> None:
    made = evaluate_calibration(BUNDLED)
    low, high = ROC_AUC
    assert low <= made.before.roc_auc <= high
    assert made.before.calibration_error >= LEAST_BEFORE
    assert made.after.calibration_error <= MOST_AFTER
    assert made.after.log_loss < made.before.log_loss
    assert made.held_out_pairs == 4_000
    assert "at most 0.03 after" in report(made)


def test_given_the_bundled_calibration_then_it_tells_unseen_true_captions_from_false_ones() -> None:
    calibration = Calibration.load(BUNDLED / FILE_NAME)
    engine = Engine.load(BUNDLED, tasks=["match"])
    calibration.check(engine.model_id, engine.revision)
    assert calibration.position_zero == engine.position_zero
    found = scored(engine, drawn(1_000, "unseen", clean=True))
    said = np.array([calibration.probability(margin) for margin in found.margins])
    called = np.array([calibration.decision(one) == "match" for one in said])
    assert called[found.labels].mean() >= 0.95
    assert (~called[~found.labels]).mean() >= 0.95


def test_given_the_command_then_it_prints_the_calibration_of_as_many_scenes() -> None:
    result = CliRunner().invoke(cli.cli, ["evaluate", "--calibration", "--scenes", "200", "--json"])
    assert result.exit_code == 0, result.stderr
    assert Calibration.model_validate_json(result.stdout).held_out_pairs == 200
    both = CliRunner().invoke(cli.cli, ["evaluate", "--calibration", "--modes"])
    assert (both.exit_code, both.stdout) == (2, "")
