"""No damaged or hostile file does harm: its code, within time and memory, and not a word."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images.damage import Hostile
from tests.images.hostile import hostile
from worker.errors import ErrorCode, Fault
from worker.image import ImageLimits, decode

HOSTILE = hostile()


def outcome(data: bytes) -> ErrorCode | None:
    try:
        decode(data, ImageLimits())
    except Fault as fault:
        return fault.code
    return None


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_given_a_hostile_file_when_decoded_then_it_fails_with_its_code(case: Hostile) -> None:
    assert outcome(case.data) in case.codes


def test_given_all_hostile_files_when_decoded_in_a_process_then_it_is_quick_small_and_silent(
    tmp_path: Path,
) -> None:
    """One process, whose own words, longest time and peak of memory are looked at."""
    (tmp_path / "files").write_bytes(pickle.dumps([case.data for case in HOSTILE]))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "files"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    codes = json.loads((tmp_path / "codes").read_text())
    for case, code in zip(HOSTILE, codes, strict=True):
        assert code in case.codes, case.name  # a fresh process comes to the same
    before_mib, peak_mib, longest_s, which = done.stdout.split(maxsplit=3)
    print(f"peak {peak_mib} MiB, {before_mib} before; longest {longest_s} s:", which)
    # 16383 x 3000 pixels are within the limits, and a file of a few bytes may have them.
    assert int(peak_mib) - int(before_mib) < 700
    assert float(longest_s) < 3


PROGRAM = """
import json, pickle, re, sys, time
from pathlib import Path
from worker.errors import Fault
from worker.image import ImageLimits, decode

def peak_mib():
    # Not ru_maxrss, which a process has from the one it was forked from.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

files = pickle.loads(Path(sys.argv[1]).read_bytes())
before, longest, codes = peak_mib(), (0.0, ""), []
for number, data in enumerate(files):
    start = time.process_time()
    try:
        decode(data, ImageLimits())
        codes.append(None)
    except Fault as fault:
        codes.append(fault.code)
    longest = max(longest, (time.process_time() - start, f"file-{number}"))
Path(sys.argv[1]).with_name("codes").write_text(json.dumps(codes))
print(before, peak_mib(), f"{longest[0]:.2f}", longest[1])
"""
"""Warnings are what Python prints by default: pytest's own filters are not there."""
