"""Images in all their forms to the ViT's input, as BlipImageProcessor's PIL path makes it.

RGB (transparency on white), squashed to the checkpoint's size with its resampling filter, all in
uint8. Rescaling and normalisation are left to the device: a quarter of the bytes travel. Tensors
of the right size need no Pillow, so it is imported where it is used: the benchmark runs without.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.blip.config import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

ImageLike = Union[str, os.PathLike[str], "Image.Image", NDArray[np.uint8]]
Images = ImageLike | Sequence[ImageLike] | Tensor


def stack(images: Images, preprocessing: Preprocessing) -> Tensor:
    """Images as one tensor: uint8 [N, 3, H, W], or the float tensor that was given.

    One image or a sequence of images: paths (EXIF orientation applied), PIL images, uint8 arrays
    [H, W], [H, W, 3] or [H, W, 4]. A uint8 array [N, H, W, 3] or tensor [N, 3, H, W] is a batch.
    A float tensor [N, 3, H, W] is taken as resized and normalised already, as BlipProcessor's
    `pixel_values` are. Raises ValueError for another shape or dtype, and what Pillow raises
    (OSError, DecompressionBombError) for a file that is no image.
    """
    if isinstance(images, Tensor):
        return _checked(images, preprocessing)
    from PIL import Image

    if isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    elif isinstance(images, np.ndarray):
        images = list(images) if images.ndim == 4 else [images]
    height, width = preprocessing.size
    pixels = np.empty((len(images), height, width, 3), dtype=np.uint8)
    for row, image in zip(pixels, images, strict=True):
        row[:] = resize(open_rgb(image), preprocessing)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


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


def resize(image: "Image.Image", preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Squash to the checkpoint's size, aspect ratio not kept: uint8 [H, W, 3]."""
    height, width = preprocessing.size
    return np.asarray(image.resize((width, height), resample=preprocessing.resample))


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


def _checked(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    height, width = preprocessing.size
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"an image tensor is [N, 3, H, W], not {list(pixels.shape)}")
    if pixels.dtype == torch.uint8 and pixels.shape[2:] != (height, width):
        rows = [row.permute(1, 2, 0).cpu().numpy() for row in pixels]
        return stack(rows, preprocessing)
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise ValueError(f"an image tensor is uint8 or float, not {pixels.dtype}")
    if pixels.shape[2:] != (height, width):
        raise ValueError(
            f"a float tensor is resized already, to {height}x{width}, "
            f"not {pixels.shape[2]}x{pixels.shape[3]}"
        )
    return pixels
