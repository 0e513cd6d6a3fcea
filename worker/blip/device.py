"""Devices and number types by name."""

import torch

from worker.blip.errors import DeviceUnavailable

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


def device_named(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises DeviceUnavailable."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise DeviceUnavailable(f"device must be auto, cpu, cuda or cuda:N, not {name!r}") from exc
    if device.type not in ("cpu", "cuda"):
        raise DeviceUnavailable(f"device must be auto, cpu, cuda or cuda:N, not {name!r}")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise DeviceUnavailable(f"no device {name}: torch finds {count} CUDA devices here")
    return device
