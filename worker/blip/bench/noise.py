"""Images to measure with."""

import torch
from torch import Tensor


def coarse_noise(count: int, size: tuple[int, int]) -> Tensor:
    """uint8 [count, 3, H, W] of 4x4 coloured fields: images that a random ViT can tell apart."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randint(0, 256, (count, 3, 4, 4), generator=generator).float()
    return torch.nn.functional.interpolate(fields, size, mode="nearest").to(torch.uint8)
