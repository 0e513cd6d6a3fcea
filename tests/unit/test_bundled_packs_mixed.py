"""The bundled packs in one batch, with the bundled checkpoint's own English beside them."""

import random
from pathlib import Path

import pytest

from worker.blip import Engine, Pack
from worker.training.scenes import draw, sample

CHECKPOINTS = Path(__file__).parents[2] / "worker" / "checkpoints"
SCENES = 12


@pytest.mark.parametrize("beams", [1, 3])
def test_given_a_batch_in_all_languages_then_each_row_is_its_single_jobs_caption(
    beams: int,
) -> None:
    engine = Engine.load(CHECKPOINTS / "scenes", tasks=["caption"])
    folders = sorted((CHECKPOINTS / "packs").iterdir())
    packs: list[Pack | None] = [None, *(engine.load_pack(folder) for folder in folders)]
    rng = random.Random(0)
    images = [draw(sample(rng)) for _ in range(SCENES)]
    chosen = [packs[row % len(packs)] for row in range(SCENES)]
    mixed = engine.caption(images, packs=chosen, num_beams=beams)
    for image, pack, [found] in zip(images, chosen, mixed, strict=True):
        [[alone]] = engine.caption(image, packs=pack, num_beams=beams)
        assert found.token_ids == alone.token_ids
        assert found.text == alone.text
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-4)
    assert all(pack is None or pack.bytes < 2_000_000 for pack in packs)
    assert len({pack.language for pack in packs if pack is not None}) == len(folders)
