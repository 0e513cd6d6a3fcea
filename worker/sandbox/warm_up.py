"""What decoders do once before they are forked, so that none of them has to do it again."""

import io

from PIL import Image

from worker.blip.framing import Framing
from worker.formats import enable
from worker.image import ImageLimits, decode

__all__ = ["warm_up"]


def warm_up(limits: ImageLimits) -> None:
    """Decode one small file of each format, turned and with text, framed: modules that are
    imported late are in place then. A decoder can open no file, so it could not import them."""
    Image.init()
    enable(limits.formats)
    framing = Framing("pad", (32, 32), 16, Image.Resampling.BICUBIC, (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in limits.formats:
        for mode in ("RGB", "RGBA", "P", "L"):
            file = io.BytesIO()
            picture = Image.new(mode, (24, 16))
            try:
                picture.save(file, name, exif=exif)
            except (OSError, KeyError, ValueError):
                continue  # no writer of this format, or none of this mode
            decode(file.getvalue(), limits, framing)
