"""What tests/gpu measures runs without a GPU too, on a tiny checkpoint."""

from pathlib import Path

import pytest

from tests.gpu.figures import GOALS, differing, figures
from worker.blip import Engine
from worker.blip.bench import Case
from worker.blip.bench.peak import Peak


def test_each_case_has_its_figures_its_goals_and_whether_it_reached_them(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.blip.bench.compare.caption_peak", lambda *_: Peak(2, 1))
    monkeypatch.setattr("worker.blip.bench.gemm_peak._SECONDS", 0.01)
    found = figures(Case("tiny", tiny, "cpu", "bfloat16", "bfloat16", batch=2, tokens=3, rounds=1))
    assert list(found) == ["beams 1", "beams 5"]
    for beams, result in zip(GOALS, found.values(), strict=True):
        assert (result["beams"], result["dtype"], result["goals"]) == (
            beams,
            "bfloat16",
            GOALS[beams],
        )
        for name, goal in GOALS[beams].items():
            assert result["reached"][name] is (result[name] >= goal)


@pytest.mark.parametrize("beams", GOALS)
def test_parity_names_the_images_that_differ(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    case = Case("tiny", tiny, "cpu", batch=4, beams=beams, tokens=5)
    assert differing(case) == []
    caption = Engine.caption

    def wrong(engine: Engine, images: object, options: object) -> object:
        rows = caption(engine, images, options)  # type: ignore[arg-type]
        rows[2][0].token_ids[0] += 1
        return rows

    monkeypatch.setattr(Engine, "caption", wrong)
    assert differing(case) == [2]
