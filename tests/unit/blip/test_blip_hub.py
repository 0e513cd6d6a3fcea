"""Where a checkpoint comes from, without a hub: the download is handed in."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.blip_checkpoints import to_pickle
from worker.blip import CheckpointError, Engine, fetch_model
from worker.blip.hub import resolve

COMMIT = "89b09ea1789f7addf2f6d6f0dfc4ce10ab58ef84"


class Hub:
    """Stands for snapshot_download: a folder named by its commit, files by allow_patterns."""

    def __init__(self, remote: Path, cache: Path) -> None:
        self.remote, self.cache = remote, cache
        self.calls: list[dict[str, Any]] = []

    def __call__(self, model_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.calls.append({"model_id": model_id, "revision": revision})
        folder = self.cache / COMMIT
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for file in self.remote.glob(pattern):
                shutil.copyfile(file, folder / file.name)
        return str(folder)


def refuse(*_: Any, **__: Any) -> str:
    raise ConnectionError("offline")


def test_given_a_hub_id_when_fetched_then_the_copy_is_pinned_and_loads_offline(
    copy_of_tiny: Path, tmp_path: Path
) -> None:
    (copy_of_tiny / "pytorch_model.bin").write_bytes(b"not wanted")
    (copy_of_tiny / "tf_model.h5").write_bytes(b"not wanted")
    (copy_of_tiny / "modeling_blip.py").write_text("raise SystemExit")
    hub = Hub(copy_of_tiny, tmp_path / "cache")
    source = fetch_model("owner/name", tmp_path / "out", revision="main", download=hub)
    assert source.revision == COMMIT
    assert hub.calls == [{"model_id": "owner/name", "revision": "main"}]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "source.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    engine = Engine.load(tmp_path / "out", revision=COMMIT)
    assert (engine.model_id, engine.revision) == ("owner/name", COMMIT)


def test_given_a_hub_id_without_safetensors_when_fetched_then_the_pickle_of_that_commit_is_taken(
    copy_of_tiny: Path, tmp_path: Path
) -> None:
    to_pickle(copy_of_tiny)
    hub = Hub(copy_of_tiny, tmp_path / "cache")
    fetch_model("owner/name", tmp_path / "out", download=hub)
    assert [call["revision"] for call in hub.calls] == [None, COMMIT]
    assert (tmp_path / "out" / "pytorch_model.bin").exists()
    assert Engine.load(tmp_path / "out").revision == COMMIT


def test_given_a_folder_when_fetched_then_it_is_copied(tiny: Path, tmp_path: Path) -> None:
    source = fetch_model(str(tiny), tmp_path / "out", download=refuse)
    assert source.model_id == tiny.name
    record = json.loads((tmp_path / "out" / "source.json").read_text())
    assert record == {"model_id": tiny.name, "revision": None}
    assert Engine.load(tmp_path / "out").revision == Engine.load(tiny).revision


def test_given_a_folder_that_is_not_empty_when_fetched_into_then_it_is_refused(
    tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="is not empty"):
        fetch_model(str(tiny), tmp_path)


def test_given_no_network_when_resolved_then_the_error_says_so() -> None:
    with pytest.raises(CheckpointError, match="cannot get owner/name from the hub"):
        resolve("owner/name", download=refuse)


@pytest.mark.parametrize("model", ["/no/such/folder", "./missing", "a/b/c", "", "../x"])
def test_given_neither_a_folder_nor_an_id_when_resolved_then_it_is_refused(model: str) -> None:
    with pytest.raises(CheckpointError):
        resolve(model or "no folder", download=refuse)


def test_given_a_folder_of_another_revision_when_resolved_then_it_is_refused(
    tiny: Path, tiny_engine: Engine
) -> None:
    assert resolve(tiny, revision=tiny_engine.revision).folder == tiny
    with pytest.raises(CheckpointError, match=f"is revision {tiny_engine.revision}, not abc"):
        resolve(tiny, revision="abc")
