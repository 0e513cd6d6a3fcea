"""An index in a folder."""

from pathlib import Path

import pytest

from producer.index.place import Place
from producer.index.table import VectorIndex


@pytest.fixture
def index(tmp_path: Path) -> VectorIndex:
    return VectorIndex(Place(str(tmp_path / "index")))
