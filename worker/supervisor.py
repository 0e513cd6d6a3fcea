"""One worker process per device: started, named, watched and started again."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from worker.settings import EX_CONFIG
from worker.shutdown import EX_SOFTWARE

log = logging.getLogger(__name__)

STEADY_S = 60.0
"""A process that ran this long and then died starts again at once."""

RESTART_CAP_S = 30.0


SUPERVISOR_PID = "CAPTIONQ_SUPERVISOR_PID"
"""Environment variable by which a worker process knows its supervisor."""

SUPERVISED_PORTS = "CAPTIONQ_SUPERVISED_PORTS"
"""Environment variable by which it knows the ports of all processes of its supervisor."""

Process = subprocess.Popen[bytes]


def device_names(spec: str, cuda_devices: Callable[[], int]) -> list[str]:
    """The devices of `--devices`: "auto", "cpu", or CUDA devices such as "0,1" or "cuda:1".

    >>> device_names("0,2", lambda: 4)
    ['cuda:0', 'cuda:2']
    >>> device_names("auto", lambda: 0)
    ['cpu']

    Raises:
        ValueError: for any other spelling, or a device that is not there.
    """
    if spec == "cpu":
        return ["cpu"]
    count = cuda_devices()
    if spec in ("auto", "cuda") and (count or spec == "auto"):
        return [f"cuda:{index}" for index in range(count)] or ["cpu"]
    try:
        indices = [int(part.removeprefix("cuda:")) for part in spec.split(",")]
    except ValueError:
        raise ValueError(
            f"--devices is auto, cpu, or CUDA devices such as 0,1: not {spec!r}"
        ) from None
    if missing := [index for index in indices if not 0 <= index < count]:
        raise ValueError(f"no CUDA device {missing[0]}: this machine has {count}")
    return [f"cuda:{index}" for index in dict.fromkeys(indices)]


def restart_delay_s(ran_s: float, deaths: int) -> float:
    """Seconds to wait before starting again a process that died: none after a steady life.

    >>> [restart_delay_s(1.0, deaths) for deaths in (1, 2, 3, 9)]
    [1.0, 2.0, 4.0, 30.0]
    >>> restart_delay_s(3600.0, 4)
    0.0
    """
    return 0.0 if ran_s >= STEADY_S else float(min(RESTART_CAP_S, 2.0 ** (deaths - 1)))


def metrics_port(first: int, index: int, processes: int) -> dict[str, str]:
    """The variables of the process at this place: each has a port of its own, and knows those of
    all; 0 is for none.

    >>> metrics_port(9101, 2, 3)
    {'CAPTIONQ_METRICS_PORT': '9103', 'CAPTIONQ_SUPERVISED_PORTS': '9101,9102,9103'}
    >>> metrics_port(0, 2, 3)
    {}
    """
    if not first:
        return {}
    ports = ",".join(str(first + n) for n in range(processes))
    return {"CAPTIONQ_METRICS_PORT": str(first + index), SUPERVISED_PORTS: ports}


def supervised_ports() -> list[int]:
    """In a worker process: where those that have the same supervisor say how they are; none where
    it has none."""
    return [int(port) for port in os.environ.get(SUPERVISED_PORTS, "").split(",") if port]


@dataclass
class _Slot:
    device: str
    process: Process | None = None
    started_s: float = 0.0
    deaths: int = 0
    due_s: float = 0.0
    has_worked: bool = False


@dataclass
class Supervisor:
    """Keeps one process running per device until told to stop.

    `start(device)` starts one. SIGTERM and SIGINT are passed on as SIGTERM, each time they come,
    and the supervisor waits for the processes to finish what they run. A process that ends by
    itself is started again, unless its status says that it cannot start as it is set up: then all
    end. Where its device has worked before, the setup is right and the device is broken: the others
    go on, and it is tried again.
    """

    devices: Sequence[str]
    start: Callable[[str], Process]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _stopping: bool = field(default=False, init=False)
    _status: int = field(default=0, init=False)
    _signals: int = field(default=0, init=False)

    def run(self) -> int:
        """Watch until all processes have ended; returns the exit status for this process."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._on_signal)
        slots = [_Slot(device) for device in self.devices]
        while True:
            for slot in slots:
                self._look_after(slot)
            if self._stopping:
                return self._stop(slots)
            self.sleep(0.2)

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._stopping = True

    def _look_after(self, slot: _Slot) -> None:
        now_s = self.clock()
        if slot.process is None:
            if now_s >= slot.due_s and not self._stopping:
                slot.process, slot.started_s = self.start(slot.device), now_s
                log.info("%s: started as process %d", slot.device, slot.process.pid)
            return
        status = slot.process.poll()
        if status is None:
            return
        slot.process = None
        ran_s = now_s - slot.started_s
        slot.has_worked = slot.has_worked or ran_s >= STEADY_S or status == EX_SOFTWARE
        if status == EX_CONFIG and not slot.has_worked:
            log.error("%s: cannot start as it is set up; not trying again", slot.device)
            self._stopping, self._status = True, EX_CONFIG
            return
        slot.deaths = 1 if ran_s >= STEADY_S else slot.deaths + 1
        slot.due_s = now_s + restart_delay_s(ran_s, slot.deaths)
        log.warning(
            "%s: ended with status %d after %.0f s; starting again in %.0f s",
            slot.device,
            status,
            ran_s,
            slot.due_s - now_s,
        )

    def _stop(self, slots: Sequence[_Slot]) -> int:
        running = [(slot.device, slot.process) for slot in slots if slot.process is not None]
        passed_on = -1
        while running:
            if passed_on < self._signals:
                passed_on = self._signals
                for _, process in running:
                    process.send_signal(signal.SIGTERM)
            self.sleep(0.1)
            for device, process in list(running):
                if process.poll() is not None:
                    running.remove((device, process))
                    log.info("%s: ended", device)
        return self._status


def start_worker(
    device: str,
    extra: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    *,
    banner: bool = True,
) -> Process:
    """Start a Celery worker for one device, named after it, e.g. captionq-cuda0@HOST.

    Args:
        extra: further words of its command.
        settings: variables of its own.
        banner: whether Celery says in lines of its own what it is about to do.
    """
    name = f"captionq-{device.replace(':', '')}@%h"
    command = [sys.executable, "-m", "celery", *([] if banner else ["--quiet"])]
    command += ["-A", "worker.app", "worker"]
    command += ["-P", "threads", "-n", name, *extra]
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        command,
        env=os.environ
        | {"CAPTIONQ_DEVICE": device, SUPERVISOR_PID: str(os.getpid())}
        | dict(settings or {}),
        start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone
    )


def end_with_supervisor() -> None:
    """In a worker process: be sent SIGTERM when the supervisor that started it dies.

    Otherwise a supervisor that was killed and started again would load every device twice.
    prctl(2), PR_SET_PDEATHSIG = 1; Linux only.
    """
    pid = os.environ.get(SUPERVISOR_PID)
    if pid is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(pid):
        os.kill(os.getpid(), signal.SIGTERM)
