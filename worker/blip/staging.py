"""Host memory that images travel to the device from: made once, and used for every batch.

A copy from pageable memory goes through a buffer of the driver's and holds up the thread; from
pinned memory the device fetches by itself (CUDA C++ Best Practices Guide, "Pinned Memory"). Pixels
travel as uint8, a quarter of float32, and are put channels first where they arrive.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.blip.errors import device_errors


class Staging:
    """The way to one device. Not thread-safe: one thread uses it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._fetched: Any = None
        """The event after which the device has read the buffer."""

    def stack(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Images of one size, uint8 [H, W, 3], as uint8 [N, 3, H, W] on the device.

        Raises OutOfMemory, DeviceLost.
        """
        with device_errors(self._device):
            pixels = self._filled(images).to(self._device, non_blocking=self._pinned)
            if self._pinned:
                self._fetched = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._fetched.record(torch.cuda.current_stream(self._device))
            return pixels.permute(0, 3, 1, 2).contiguous()

    def _filled(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """The images one after the other in the buffer, [N, H, W, 3], when it is free."""
        if self._fetched is not None:
            self._fetched.synchronize()
        shape = (len(images), *images[0].shape)
        size = int(np.prod(shape))
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
        staged = self._buffer[:size].view(shape)
        np.stack(images, out=staged.numpy())
        return staged
