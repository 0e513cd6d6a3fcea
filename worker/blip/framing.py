"""How images are brought to the ViT's pixels, as one plain value that can be sent anywhere.

Needs Pillow and numpy alone, and neither before an image comes: a process that decodes files has
no use for torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.blip.geometry import Box, Mode, Placement, check_box, place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Framing:
    """A mode at a size, with what the checkpoint's preprocessor says of pixels.

    size       (height, width) of the square that all modes start from
    patch_size its side in pixels
    resample   a PIL.Image.Resampling value
    fill       RGB round a letterboxed picture: the preprocessor's mean, which becomes 0 but for
               the rounding to a byte

    What one mode has framed, every mode leaves as it is, except that stretch, pad and crop would
    reshape native's grids: framed images may be sent on through native.
    """

    mode: Mode
    size: tuple[int, int]
    patch_size: int
    resample: int
    fill: tuple[int, int, int]

    def place(self, width: int, height: int) -> Placement:
        """Where an image of this many pixels goes."""
        return place(self.mode, width, height, self.size, self.patch_size)

    def leaves(self, width: int, height: int) -> bool:
        """Whether an image of this many pixels stays as it is."""
        return self.place(width, height) == Placement((width, height), (width, height))

    def frame(self, image: "Image.Image") -> "NDArray[np.uint8]":
        """An RGB image at its place: uint8 [H, W, 3], contiguous."""
        import numpy as np
        from PIL import Image

        placement = self.place(*image.size)
        if placement.box is not None:
            image = image.crop(placement.box)
        if image.size != placement.resized:
            image = image.resize(placement.resized, Image.Resampling(self.resample))
        if placement.resized != placement.canvas:
            canvas = Image.new("RGB", placement.canvas, self.fill)
            canvas.paste(image, placement.offset)
            image = canvas
        return np.array(image, dtype=np.uint8)


PUBLISHED = Framing("stretch", (384, 384), 16, 3, (123, 117, 104))
"""How BLIP's published checkpoints see an image: bicubic, and round it the preprocessor's mean."""


def cut(image: "Image.Image", regions: Sequence[Box]) -> "Iterator[Image.Image]":
    """The parts of an image, in order, each as if it were an image of its own.

    They are made one by one: all at once may be many times the image. Raises ValueError, before
    the first, for an empty region and for one that leaves the image.
    """
    for region in regions:
        check_box(region, *image.size)
    return (image.crop(region) for region in regions)
