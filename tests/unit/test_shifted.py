"""The shifted domain: other paints and words, the same scenes, pairs that finetune reads."""

import random
from pathlib import Path

import numpy as np
import pytest

from worker.training.finetune.rows import Columns, Complaints, read_manifest
from worker.training.scenes import COLOURS, sample
from worker.training.shifted import PAINTS, UNSEEN, WORDS, drawn, repainted, reworded, write
from worker.training.vocabulary import tokenizer


def test_captions_have_words_that_the_bundled_checkpoint_never_read() -> None:
    assert reworded("a small pink star above a large red ring on gray") == (
        "a small rose star above a large red ring on slate"
    )
    known = set(tokenizer().get_vocab())
    assert not set(WORDS.values()) & known
    assert set(WORDS) <= known


def test_every_paint_is_another_than_the_colour_was_and_than_each_other() -> None:
    apart = [
        sum(abs(a - b) for a, b in zip(PAINTS[name], COLOURS[name], strict=True))
        for name in COLOURS
    ]

    assert min(apart) > 40
    assert len(set(PAINTS.values())) == len(COLOURS)


def test_a_repainted_scene_is_where_it_was_and_means_what_it_meant() -> None:
    scene = sample(random.Random(1))

    other = repainted(scene, random.Random(2))

    assert other.caption == scene.caption
    assert [shape.box for shape in other.shapes] == [shape.box for shape in scene.shapes]
    assert other.background_rgb != scene.background_rgb


def test_what_is_drawn_follows_from_the_seed() -> None:
    one, two, other = (list(drawn(3, seed)) for seed in ("a", "a", "b"))

    assert [each.caption for each in one] == [each.caption for each in two]
    assert np.array_equal(np.asarray(one[0].image), np.asarray(two[0].image))
    assert [each.caption for each in one] != [each.caption for each in other]
    assert all(each.caption != each.false for each in one)


def test_pairs_are_a_manifest_of_both_domains(tmp_path: Path) -> None:
    rows = list(read_manifest(write(tmp_path, 4, 2), Columns(), Complaints(print, strict=True)))

    assert len(rows) == 12
    assert [row.match for row in rows] == [True, False] * 6
    assert len({row.picture for row in rows}) == 6


def test_what_packs_are_judged_on_is_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="judged on"):
        write(tmp_path, 4, 2, UNSEEN)
