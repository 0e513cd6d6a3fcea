"""Images in all their forms to the ViT's input; by default as BlipImageProcessor's PIL path does.

RGB (transparency on white), framed to a grid of patches with the checkpoint's resampling filter,
all in uint8. Rescaling and normalisation are left to the device: a quarter of the bytes travel.
Tensors of the right size need no Pillow, so it is imported where it is used: the benchmark runs
without.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.blip.config import Preprocessing
from worker.blip.framing import Framing, cut
from worker.blip.geometry import Box, Mode, check_tiles, size_at

if TYPE_CHECKING:
    from PIL import Image

ImageLike = Union[str, os.PathLike[str], "Image.Image", NDArray[np.uint8]]
Images = ImageLike | Sequence[ImageLike] | Tensor


@dataclass(frozen=True)
class Group:
    """The images of one size in a batch: their places in it, and [n, 3, H, W], uint8 or float."""

    rows: list[int]
    pixels: Tensor


def framing(
    preprocessing: Preprocessing, patch_size: int, mode: Mode, resolution: int | None
) -> Framing:
    """How a checkpoint's images are framed. Raises ValueError for a resolution it cannot take."""
    red, green, blue = (
        min(255, max(0, round(mean / preprocessing.scale))) for mean in preprocessing.mean
    )
    return Framing(
        mode=mode,
        size=size_at(preprocessing.size, patch_size, resolution),
        patch_size=patch_size,
        resample=preprocessing.resample,
        fill=(red, green, blue),
    )


def stacked(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Images of one size, uint8 [H, W, 3], as uint8 [N, 3, H, W]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def frame(
    images: Images,
    framing: Framing,
    own_size: tuple[int, int],
    stack: Callable[[Sequence[NDArray[np.uint8]]], Tensor] = stacked,
) -> list[Group]:
    """Images at their places, those of one size together; one group in all modes but native.

    One image or a sequence of images: paths (EXIF orientation applied), PIL images, uint8 arrays
    [H, W], [H, W, 3] or [H, W, 4]. A uint8 array [N, H, W, 3] or tensor [N, 3, H, W] is a batch.
    A float tensor [N, 3, H, W] is taken as framed and normalised already, as BlipProcessor's
    `pixel_values` are: of any size that patches tile, up to MAX_PATCHES times the patches of
    `own_size`, the checkpoint's (height, width). `stack` makes one tensor of the framed images of a
    size, as `stacked` does. Raises ValueError for another shape or dtype, and what Pillow raises
    (OSError, DecompressionBombError) for a file that is no image.
    """
    if isinstance(images, Tensor):
        return _tensor(images, framing, own_size, stack)
    from PIL import Image

    if isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    elif isinstance(images, np.ndarray):
        images = list(images) if images.ndim == 4 else [images]
    framed = [_framed(image, framing) for image in images]
    if not framed:
        return [Group([], torch.empty((0, 3, *framing.size), dtype=torch.uint8))]
    shapes: dict[tuple[int, ...], list[int]] = {}
    for row, pixels in enumerate(framed):
        shapes.setdefault(pixels.shape, []).append(row)
    return [Group(rows, stack([framed[row] for row in rows])) for rows in shapes.values()]


def crop(image: ImageLike, regions: Sequence[Box]) -> "list[Image.Image]":
    """The regions of one image, (left, top, right, bottom) in its upright pixels, as images.

    Raises ValueError for a region that is empty or leaves the image.
    """
    return list(cut(open_rgb(image), regions))


def open_rgb(image: ImageLike) -> "Image.Image":
    """Any one image as PIL RGB, of its own size."""
    from PIL import Image, ImageOps

    if isinstance(image, str | os.PathLike):
        with Image.open(Path(image)) as file:
            return _rgb(ImageOps.exif_transpose(file))
    if isinstance(image, Image.Image):
        return _rgb(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"an image is a path, a PIL image or a uint8 array, not {kind}")
    if image.ndim != 2 and not (image.ndim == 3 and image.shape[2] in (3, 4)):
        raise ValueError(f"an image array is [H, W], [H, W, 3] or [H, W, 4], not {image.shape}")
    return _rgb(Image.fromarray(image))


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 [N, 3, H, W] to float32 (pixels * scale - mean) / std; float tensors pass."""
    if pixels.is_floating_point():
        return pixels
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() * preprocessing.scale - mean) / std


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if "A" in image.getbands() or image.info.get("transparency") is not None:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _framed(image: ImageLike, framing: Framing) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]; an array that is framed already is not copied."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,):
        height, width = image.shape[:2]
        if framing.leaves(width, height):
            return image
    return framing.frame(open_rgb(image))


def _tensor(
    pixels: Tensor,
    framing: Framing,
    own_size: tuple[int, int],
    stack: Callable[[Sequence[NDArray[np.uint8]]], Tensor],
) -> list[Group]:
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"an image tensor is [N, 3, H, W], not {list(pixels.shape)}")
    height, width = pixels.shape[2:]
    if pixels.is_floating_point():
        check_tiles(height, width, own_size, framing.patch_size)
    elif pixels.dtype != torch.uint8:
        raise ValueError(f"an image tensor is uint8 or float, not {pixels.dtype}")
    elif not framing.leaves(width, height):
        rows = [row.permute(1, 2, 0).cpu().numpy() for row in pixels]
        return frame(rows, framing, own_size, stack)
    return [Group(list(range(len(pixels))), pixels)]
