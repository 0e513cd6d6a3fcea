"""How much of a CUDA device is in use, as torch sees it."""

from typing import NamedTuple

import torch

__all__ = ["DeviceUse", "device_use"]


class DeviceUse(NamedTuple):
    """Bytes: allocated to tensors, reserved by torch's allocator, free on the device for all, and
    all that it has. utilization: how much of the last moments it was busy, 0 to 1; None where the
    driver's library for that (pynvml) is missing."""

    allocated: int
    reserved: int
    free: int
    total: int
    utilization: float | None


def device_use(device: str) -> DeviceUse | None:
    """Of one device, e.g. "cuda:0"; None for a CPU."""
    if torch.device(device).type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    try:
        busy: float | None = torch.cuda.utilization(device) / 100
    except Exception:  # noqa: BLE001 - pynvml's own, where a part of a device (MIG) is not told of
        busy = None
    return DeviceUse(
        torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device), free, total, busy
    )
