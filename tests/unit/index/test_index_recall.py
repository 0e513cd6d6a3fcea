"""The index finds what exact search does (python -m tests.index_recall at full size)."""

from pathlib import Path

import numpy as np
import pytest

from producer.index.place import Place
from producer.index.table import INDEXED_FROM
from tests.index_recall import Entry, filled, measured, mixture, uniform

WANTED = 0.98


@pytest.mark.parametrize("draw", [uniform, mixture])
def test_given_rows_of_which_some_are_indexed_then_recall_at_10_is_that_of_exact_search(
    tmp_path: Path, draw: object
) -> None:
    case = draw(np.random.default_rng(2), INDEXED_FROM + 100, 30)  # type: ignore[operator]
    index = filled(Place(str(tmp_path / "index")), case.rows[:INDEXED_FROM])
    assert index.stats().indexed == 0
    assert index.optimize_when_due()
    assert not index.optimize_when_due()
    later = enumerate(case.rows[INDEXED_FROM:], INDEXED_FROM)
    index.upsert([Entry(f"s3://b/{n}", vector, "model", "revision") for n, vector in later])
    stats = index.stats()
    assert (stats.rows, stats.indexed) == (INDEXED_FROM + 100, INDEXED_FROM)

    for name, queries in case.queries.items():
        found = measured(index, case.rows, queries)
        assert found.recall_exact == 1, name
        assert found.recall >= WANTED, name
