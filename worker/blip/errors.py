"""What can go wrong inside the engine, and the one place where torch's errors get those names.

    BlipError
      CheckpointError    the checkpoint is missing something, or says something we refuse
        PackError        so is a pack, or it is another checkpoint's
      InputError         a prompt or text that this checkpoint can never take; a ValueError too
      DeviceUnavailable  the device that was asked for is not here; a ValueError too
      OutOfMemory        the batch did not fit; a smaller one may
      DeviceLost         the device context is dead; only a new process helps

Other mistakes of the caller (a wrong shape, an option out of range) are plain ValueErrors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CUDA_ERROR_MEMORY_ALLOCATION = 2


class BlipError(Exception):
    """Base of the engine's own errors."""


class CheckpointError(BlipError):
    """The checkpoint cannot be used; the message says what is missing or wrong, in one sentence."""


class PackError(CheckpointError):
    """The pack cannot be used, or not with this checkpoint; the message says why."""


class InputError(BlipError, ValueError):
    """The input exceeds a limit of the checkpoint, which the message names; it can never work."""


class DeviceUnavailable(BlipError, ValueError):  # noqa: N818 - as below
    """torch has no such device here."""


class OutOfMemory(BlipError):  # noqa: N818 - what happened, not what kind of thing it is
    """The device, or the host, had no memory left for this batch."""


class DeviceLost(BlipError):  # noqa: N818
    """The device context is dead (sticky CUDA error): every further call would fail as well."""


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Map torch's memory and device errors to OutOfMemory and DeviceLost; let all others pass.

    Kernels fail asynchronously, and some libraries report a dead context as a plain RuntimeError.
    So a RuntimeError on CUDA asks the device itself, rather than reading the message.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as exc:
        raise OutOfMemory(f"out of memory on {device}") from exc
    except torch.AcceleratorError as exc:
        if getattr(exc, "error_code", None) == _CUDA_ERROR_MEMORY_ALLOCATION:
            raise OutOfMemory(f"out of memory on {device}") from exc
        raise DeviceLost(f"lost {device}") from exc
    except RuntimeError as exc:
        if device.type == "cuda" and not _answers(device):
            raise DeviceLost(f"lost {device}") from exc
        raise


def _answers(device: torch.device) -> bool:
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
