"""The batch size at a worker's start: measured once, remembered, or set by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from producer.contract import ModelFacts
from worker.batch_size import Remembered, settle_batch
from worker.blip.errors import OutOfMemory
from worker.blip.sizing import Trial
from worker.settings import WorkerSettings


class Engines:
    """Models that note the batches they are warmed up with, and take at most `capacity` images."""

    device = "cpu"
    served = (("caption", "tiny"),)

    def __init__(self, capacity: int = 4, revision: str = "1") -> None:
        self.capacity, self.revision = capacity, revision
        self.warmed_up: list[int] = []
        self.captured: list[int] = []

    def facts(self, task: str) -> ModelFacts:
        return ModelFacts(id="tiny", revision=self.revision, dtype="float32")

    def warm_up(self, batch: int) -> None:
        self.warmed_up.append(batch)
        if batch > self.capacity:
            raise OutOfMemory

    def capture(self, batch: int) -> None:
        self.captured.append(batch)


Settings = Callable[..., WorkerSettings]


@pytest.fixture
def make_settings(tmp_path: Path) -> Settings:
    return lambda **values: WorkerSettings(home=tmp_path, **values)


def settle(settings: WorkerSettings, engines: Engines) -> int:
    return settle_batch(settings, engines)  # type: ignore[arg-type]


def test_given_a_batch_set_by_hand_it_is_warmed_up_and_nothing_is_measured(
    make_settings: Settings, tmp_path: Path
) -> None:
    engines = Engines()
    assert settle(make_settings(max_batch=3), engines) == 3
    assert engines.warmed_up == [3]
    assert settle(make_settings(max_batch=3, warmup=False), engines) == 3
    assert engines.warmed_up == [3]
    assert engines.captured == [3], "nothing is captured without a warm-up"
    assert list(tmp_path.iterdir()) == []


def test_given_auto_the_batch_is_measured_told_and_remembered(
    make_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engines = Engines(capacity=4)
    chosen = settle(make_settings(), engines)
    assert 1 <= chosen <= 4
    assert engines.warmed_up[0] == 1
    assert engines.captured == [chosen]
    assert caplog.messages[-1].startswith(f"batch size {chosen}: ")
    assert "; tried 1: " in caplog.messages[-1]

    again = Engines(capacity=4)
    assert settle(make_settings(), again) == chosen
    assert again.warmed_up == [chosen], "one warm-up, no search"
    assert "as measured before" in caplog.messages[-1]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"revision": "2"}, id="another checkpoint"),
        pytest.param({"memory_fraction": 0.5}, id="another share of the memory"),
        pytest.param({"torch": "9"}, id="another torch"),
    ],
)
def test_given_other_circumstances_the_batch_is_measured_again(
    make_settings: Settings, monkeypatch: pytest.MonkeyPatch, change: dict[str, str | float]
) -> None:
    settle(make_settings(), Engines())
    engines = Engines(revision=str(change.get("revision", "1")))
    if "torch" in change:
        monkeypatch.setattr("worker.blip.hardware.torch.__version__", "9")
    settle(make_settings(memory_fraction=change.get("memory_fraction", 0.8)), engines)
    assert len(engines.warmed_up) > 1


def test_given_less_memory_than_a_remembered_batch_takes_it_is_measured_again(
    make_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(make_settings(), Engines())
    monkeypatch.setattr(Remembered, "load", lambda _: Trial(4, 9.0, taken_bytes=2**50))
    engines = Engines()
    settle(make_settings(), engines)
    assert engines.warmed_up[0] == 1


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"circumstances": {"a": 1}, "chosen": {"batch": "x"}}'], ids=repr
)
def test_given_a_damaged_file_nothing_is_remembered(tmp_path: Path, content: str) -> None:
    remembered = Remembered(tmp_path, {"a": 1})
    remembered.path.write_text(content)
    assert remembered.load() is None
    remembered.save(Trial(2, 1.0, 3))
    assert remembered.load() == Trial(2, 1.0, 3)
    assert Remembered(tmp_path, {"a": 2}).load() is None


def test_given_a_folder_that_cannot_be_written_the_worker_starts_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    Remembered(tmp_path / "file", {}).save(Trial(2, 1.0, 3))
    assert "measured again at the next start" in caplog.text


def test_given_no_memory_for_one_image_the_worker_does_not_start(make_settings: Settings) -> None:
    with pytest.raises(OutOfMemory):
        settle(make_settings(), Engines(capacity=0))
