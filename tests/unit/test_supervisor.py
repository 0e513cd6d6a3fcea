"""The supervisor: which devices, when to start again, when to give up."""

from collections.abc import Callable

import pytest

from worker.settings import EX_CONFIG
from worker.shutdown import EX_SOFTWARE
from worker.supervisor import (
    Supervisor,
    device_names,
    metrics_port,
    restart_delay_s,
    supervised_ports,
)


@pytest.mark.parametrize(
    ("spec", "cuda", "expected"),
    [
        pytest.param("auto", 0, ["cpu"], id="auto without CUDA"),
        pytest.param("auto", 2, ["cuda:0", "cuda:1"], id="auto with two"),
        pytest.param("cpu", 2, ["cpu"], id="cpu although there is CUDA"),
        pytest.param("0,1", 2, ["cuda:0", "cuda:1"], id="both"),
        pytest.param("cuda:1", 2, ["cuda:1"], id="as CAPTIONQ_DEVICE spells it"),
        pytest.param("cuda", 2, ["cuda:0", "cuda:1"], id="all CUDA devices"),
        pytest.param("cuda", 0, None, id="CUDA where there is none"),
        pytest.param("1,1", 2, ["cuda:1"], id="one named twice"),
        pytest.param("2", 2, None, id="not there"),
        pytest.param("-1", 2, None, id="negative"),
        pytest.param("gpu", 2, None, id="no such spelling"),
        pytest.param("", 2, None, id="empty"),
    ],
)
def test_given_a_spec_the_devices_are_named_or_refused(
    spec: str, cuda: int, expected: list[str] | None
) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"--devices|no CUDA device"):
            device_names(spec, lambda: cuda)
    else:
        assert device_names(spec, lambda: cuda) == expected


def test_given_deaths_in_a_row_the_pause_doubles_to_a_cap() -> None:
    assert [restart_delay_s(1, deaths) for deaths in (1, 2, 3, 6, 60)] == [1, 2, 4, 30, 30]
    assert restart_delay_s(61, 60) == 0


class FakeProcess:
    pid = 1

    patience = 1
    """Signals it takes to end it."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.status

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)
        if len(self.signals) >= self.patience:
            self.status = 0


class World:
    """A clock that sleeping moves, and processes with scripted ends, per device."""

    def __init__(self, **ends: list[int | None]) -> None:
        self.now_s = 0.0
        self.ends = ends
        self.started: list[tuple[float, str]] = []
        self.running: dict[str, FakeProcess] = {}

    def start(self, device: str) -> FakeProcess:
        self.started.append((self.now_s, device))
        self.running[device] = FakeProcess(self.ends[device].pop(0))
        return self.running[device]

    def supervise(self, until: Callable[["World", Supervisor], None]) -> int:
        def sleep(seconds: float) -> None:
            self.now_s += seconds
            until(self, supervisor)

        clock = lambda: self.now_s  # noqa: E731
        supervisor = Supervisor(list(self.ends), self.start, clock, sleep)  # type: ignore[arg-type]
        return supervisor.run()


def stop_after(seconds: float) -> Callable[[World, Supervisor], None]:
    return lambda world, supervisor: (
        supervisor._on_signal(15, None) if world.now_s >= seconds else None
    )


def test_given_a_process_that_dies_it_is_started_again_and_the_other_is_left_alone() -> None:
    world = World(a=[1, 1, None], b=[None])
    assert world.supervise(stop_after(10)) == 0
    devices = [device for _, device in world.started]
    assert devices == ["a", "b", "a", "a"]
    times = [round(at, 1) for at, device in world.started if device == "a"]
    assert times[1] - times[0] >= 1
    assert times[2] - times[1] >= 2
    assert world.running["b"].signals == [15]


def test_given_a_process_that_cannot_start_as_set_up_all_end_with_its_status() -> None:
    world = World(a=[EX_CONFIG], b=[None])
    assert world.supervise(stop_after(60)) == EX_CONFIG
    assert world.running["b"].signals == [15]
    assert world.now_s < 1


def test_given_a_device_that_worked_and_now_cannot_start_then_the_others_go_on() -> None:
    """One GPU of several that fell off the bus: it is tried again, and stops nobody else."""
    world = World(a=[EX_SOFTWARE, EX_CONFIG, EX_CONFIG, None], b=[None])
    assert world.supervise(stop_after(60)) == 0
    assert [device for _, device in world.started] == ["a", "b", "a", "a", "a"]
    assert world.running["b"].signals == [15]
    assert world.now_s >= 60


def test_given_a_second_signal_it_is_passed_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "patience", 2)
    world = World(a=[None], b=[None])
    moments: list[float] = []

    def twice(world: World, supervisor: Supervisor) -> None:
        if len(moments) < 2 and world.now_s >= 5 * (len(moments) + 1):
            moments.append(world.now_s)
            supervisor._on_signal(15, None)

    assert world.supervise(twice) == 0
    assert [world.running[device].signals for device in "ab"] == [[15, 15], [15, 15]]
    assert 10 <= world.now_s < 11


@pytest.mark.parametrize(
    ("first", "index", "expected"),
    [
        pytest.param(9464, 0, "9464", id="the first has the port"),
        pytest.param(9464, 3, "9467", id="each next the next"),
        pytest.param(0, 3, None, id="none has any"),
    ],
)
def test_given_several_devices_each_process_has_a_port_of_its_own(
    first: int, index: int, expected: str | None
) -> None:
    assert metrics_port(first, index, processes=4).get("CAPTIONQ_METRICS_PORT") == expected


def test_given_several_devices_each_process_knows_where_all_of_them_say_how_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in metrics_port(9464, 1, processes=3).items():
        monkeypatch.setenv(name, value)
    assert supervised_ports() == [9464, 9465, 9466]
