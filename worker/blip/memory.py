"""Memory of a device: what a batch took at its peak, and what there is to take.

On CUDA the figures are those of torch's allocator. On a CPU they are of this process: its resident
set, which holds the interpreter and its libraries too, and the weights only once they were read.
"""

import ctypes
import resource
import sys
from pathlib import Path

import torch

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


class PeakMemory:
    """Watches the peak from its construction, or the last `reset`, on.

    held_bytes: what was held at construction, e.g. the weights.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self.release()
        self.held_bytes = (
            torch.cuda.memory_allocated(self._device)
            if self._device.type == "cuda"
            else _resident("VmRSS")
        )
        self.reset()

    def reset(self) -> None:
        """Forget the peak so far.

        Linux alone can forget a process's (proc(5), clear_refs 5); elsewhere it only grows.
        """
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            (_PROC / "self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def release(self) -> None:
        """Give memory that was freed in this process, and is kept for the next use, back."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif sys.platform.startswith("linux"):
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
            if trim is not None:
                trim(0)

    def peak_bytes(self) -> int:
        """The most that was held at once."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _resident("VmHWM")

    def taken_bytes(self) -> int:
        """The most that was taken beyond `held_bytes`; on CUDA with what the allocator reserved."""
        peak = self.peak_bytes()
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_reserved(self._device)
        return max(0, peak - self.held_bytes)


def available_bytes(device: torch.device | str) -> int | None:
    """What a process could take now; on a CPU within its control groups. None where unknown."""
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    known = [_meminfo(_PROC / "meminfo"), cgroup_bytes(_CGROUPS, _PROC / "self/cgroup")]
    return min((size for size in known if size is not None), default=None)


def cgroup_bytes(root: Path, membership: Path) -> int | None:
    """What the control groups of this process leave it, version 1 or 2; None without a limit.

    root: where they are mounted. membership: /proc/self/cgroup. Page cache that the kernel can
    drop (inactive_file) counts as free.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    left: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        # Inside a container the path may be the host's, and the mount shows our own group.
        for folder in {base, group, *(p for p in group.parents if base in p.parents)}:
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None:
                left.append(max(0, most - used + _stat(folder / "memory.stat", "inactive_file")))
    return min(left, default=None)


def _resident(field: str) -> int:
    """A field of /proc/self/status in bytes; where there is none, the largest resident set."""
    try:
        status = (_PROC / "self/status").read_text(encoding="utf-8")
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if field in line)


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: Path) -> int | None:
    """The file's number; None for "max", or where there is no such file."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _stat(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
