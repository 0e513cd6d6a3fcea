"""Fuzzing in a child process: `hunt` starts it, again after each crash, and keeps what it finds."""

import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from producer.errors import JobFailed
from tests.fuzz import targets
from tests.fuzz.mutate import mutated
from tests.images.hostile import hostile
from tests.images.valid import samples
from worker.errors import Fault
from worker.image import Decoded

LONGEST_S = 10.0
"""An input that takes more of the processor than that is a finding, though it ends."""
MEMORY_BYTES = 3 << 29
"""Address space of the process, as a decoder's."""
MAX_BYTES = 40_000
"""Files of the corpus that are larger slow it down."""


@dataclass(frozen=True)
class Finding:
    """What went wrong with input `number` of a seed, and where it is saved."""

    number: int
    what: str
    path: Path


@cache
def corpus() -> list[bytes]:
    """The valid files, and the hostile ones that are shown."""
    files = [sample.data for sample in samples()]
    files += [case.data for case in hostile() if case.codes == (None,)]
    return sorted({data for data in files if len(data) <= MAX_BYTES})


def input_of(seed: int, number: int, files: Sequence[bytes]) -> bytes:
    return mutated(random.Random(f"{seed}/{number}"), files)


def hunt(
    target: str,
    seed: int,
    seconds: float,
    out: Path,
    *,
    hang_s: float = 30,
    max_findings: int = 20,
    progress: Callable[[int, float, int], None] = lambda *_: None,
    progress_every_s: float = 5,
) -> list[Finding]:
    """Fuzz `target`, a name in tests.fuzz.targets, and return what was found."""
    files, findings, start = corpus(), [], 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "corpus").write_bytes(pickle.dumps(files))
        while (left := begun + seconds - time.monotonic()) > 0 and len(findings) < max_findings:
            child = _Child(target, seed, start, left, Path(folder))
            told = time.monotonic()
            while child.running(hang_s) and len(child.faults()) < max_findings:
                if time.monotonic() - told >= progress_every_s:
                    told = time.monotonic()
                    progress(child.number, told - begun, len(findings) + len(child.faults()))
            child.end()
            found = [(int(n), what) for n, what in child.faults()]
            if child.ending:
                found.append((child.number, child.ending))
            for number, what in found:
                path = out / f"{seed}-{number}"
                out.mkdir(parents=True, exist_ok=True)
                path.write_bytes(input_of(seed, number, files))
                findings.append(Finding(number, what, path))
            start = child.number + 1
    progress(start, time.monotonic() - begun, len(findings))
    return findings


class _Child:
    """One process that fuzzes from an input on, until its time is over or it dies."""

    def __init__(self, target: str, seed: int, start: int, seconds: float, folder: Path) -> None:
        self._counter, self._faults = folder / "number", folder / "faults"
        self._stderr = folder / "stderr"
        self._begun = folder / "begun"
        self._begun.unlink(missing_ok=True)
        self._counter.write_bytes(struct.pack("<Q", start))
        self._faults.write_text("")
        command = [sys.executable, "-c", "from tests.fuzz.hunt import child; child()"]
        command += [target, str(seed), str(start), str(seconds), str(folder)]
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(command, stderr=stderr)
        self._moved = (start, time.monotonic())
        self.ending = ""

    @property
    def number(self) -> int:
        """The input it is at."""
        return int(struct.unpack("<Q", self._counter.read_bytes())[0])

    def faults(self) -> list[list[str]]:
        return [line.split("\t", 1) for line in self._faults.read_text().splitlines()]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def running(self, hang_s: float) -> bool:
        """Wait a little; whether it goes on. `ending` says what was wrong with its end."""
        try:
            status = self._process.wait(0.1)
        except subprocess.TimeoutExpired:
            number, since = self.number, time.monotonic()
            if number != self._moved[0] or not self._begun.exists():
                self._moved = (number, since)
            elif since - self._moved[1] > hang_s:
                self.end()
                self.ending = f"hangs for {hang_s:g} s"
                return False
            return True
        if status:
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            self.ending = f"the process ends: {name}: {self._stderr.read_text()[-500:]!r}"
        elif said := self._stderr.read_text():
            self.ending = f"something was printed: {said[-500:]!r}"
        return False


def child() -> None:
    """What the process runs: TARGET SEED START SECONDS FOLDER."""
    name, seed, start, seconds, folder = sys.argv[1:]
    target: targets.Target = getattr(targets, name)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    files: list[bytes] = pickle.loads((Path(folder) / "corpus").read_bytes())
    counter = os.open(Path(folder) / "number", os.O_WRONLY)
    (Path(folder) / "begun").touch()
    end = time.monotonic() + float(seconds)
    with (Path(folder) / "faults").open("a", buffering=1) as faults:
        number = int(start)
        while time.monotonic() < end:
            os.pwrite(counter, struct.pack("<Q", number), 0)
            for what in wrong(target, input_of(int(seed), number, files)):
                print(number, what.replace("\n", " "), sep="\t", file=faults)
            number += 1


def wrong(target: targets.Target, data: bytes) -> Iterator[str]:
    """What is wrong with how a target takes an input."""
    begun = time.process_time()
    try:
        decoded = target(data)
    except (Fault, JobFailed):
        pass
    except Exception as exc:
        yield f"raises {exc!r}"
    else:
        yield from _misshapen(decoded, data)
    if (took_s := time.process_time() - begun) > LONGEST_S:
        yield f"takes {took_s:.1f} s"


def _misshapen(decoded: Decoded, data: bytes) -> Iterator[str]:
    facts, limits = decoded.facts, targets.LIMITS
    if facts.width * facts.height > limits.max_pixels or facts.bytes != len(data):
        yield f"facts of {facts}"
    for pixels in decoded.images:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            yield f"pixels of {pixels.dtype} {pixels.shape}"
