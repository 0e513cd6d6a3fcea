"""What a figure was measured on: the device and the libraries."""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers


@dataclass(frozen=True)
class Hardware:
    """device: the GPU's or the CPU's name; threads: torch's, for one operation on the CPU."""

    device: str
    threads: int
    torch: str
    transformers: str

    def __str__(self) -> str:
        return (
            f"{self.device}, {self.threads} threads, torch {self.torch}, "
            f"transformers {self.transformers}"
        )


def hardware(device: torch.device | str) -> Hardware:
    """The hardware behind a torch device of this process."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return Hardware(name, torch.get_num_threads(), torch.__version__, transformers.__version__)


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({_instructions()})"
    return platform.processor() or platform.machine()


def _instructions() -> str:
    """The widest vector instructions that torch uses here, e.g. AVX512."""
    return torch.backends.cpu.get_cpu_capability()
