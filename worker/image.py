"""From the bytes of an untrusted file to upright RGB pixels.

Decoding happens in C and cannot be interrupted, so what would cost too much is refused before it:
by format, by the size in the header, by the number of scans. `decode` is a top-level function of
plain values, to be run in a process that can be killed; nothing heavy is imported here.
"""

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from producer.beginnings import begins_as
from producer.contract import ImageFacts
from producer.errors import PUBLIC_TEXT, JobFailed
from worker.blip.framing import Framing, cut
from worker.blip.geometry import Box
from worker.bmp import mend_palette
from worker.colour import Alpha, mend_transparency, to_rgb
from worker.draft import Draft, draft_px
from worker.errors import ErrorCode, Fault
from worker.formats import DEFAULT_FORMATS, enable
from worker.metadata import JPEG_MARKER, exif_orientation, strip

__all__ = ["Decoded", "ImageLimits", "count_scans", "decode"]

# Pillow's own guards, for the whole process, behind worker.metadata.
PngImagePlugin.MAX_TEXT_CHUNK = 256 * 1024
PngImagePlugin.MAX_TEXT_MEMORY = 1024 * 1024
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata is the sender's affair
warnings.simplefilter("error", Image.DecompressionBombWarning)

# The transposition that undoes each EXIF orientation (Exif 2.32, 4.6.4 A); from 5 on sides swap.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_SOFS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # all but DHT, JPG and DAC


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be.

    Attributes:
        formats: Pillow's names, out of those of worker.formats. JPEG takes in MPO, a JPEG with
            further pictures behind it.
        max_pixels: width x height.
        max_side: the longer side in pixels.
        max_jpeg_scans: 400 scans in 231 KB cost 12.8 s; real progressive files have about ten.
        draft: which large JPEGs are decoded at reduced size when they are framed as a whole.
        alpha: lay transparent images on white, or drop the channel as BLIP's own code does,
            which shows colours nobody was meant to see.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    max_pixels: int = 50_000_000
    max_side: int = 16_383
    max_jpeg_scans: int = 64
    draft: Draft = "close"
    alpha: Alpha = "white"


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image, or regions of it, ready for the model.

    Attributes:
        images: the regions in order, else the whole alone: uint8 [H, W, 3], RGB, upright,
            contiguous; framed, if that was asked for.
        facts: the file as fetched; width and height are its own, before any resizing, as seen
            upright (swapped where EXIF turns the picture by a quarter).
    """

    images: tuple[NDArray[np.uint8], ...]
    facts: ImageFacts


def decode(
    data: bytes,
    limits: ImageLimits,
    framing: Framing | None = None,
    regions: Sequence[Box] | None = None,
    make_room: Callable[[int], None] = lambda _: None,
) -> Decoded:
    """Validate and decode the first frame of an image file.

    Args:
        data: the whole file.
        limits: what it may be. Pillow's own is the process's: not from several threads at a time.
        framing: how the image, or each region, is brought to the model's size; None keeps it.
        regions: boxes in pixels of the upright original, cut out before any resizing.
        make_room: called with the number of pixels that are about to be decoded, once the file's
            header has passed; returns when there is room for them.

    Raises:
        Fault: image_empty, image_unsupported_format, image_too_large, image_too_complex,
            image_corrupt. All are permanent.
        JobFailed: job_invalid, for a region that is empty or leaves the image.
    """
    if not data:
        raise Fault(ErrorCode.IMAGE_EMPTY, "no bytes")
    others = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        return _decode(data, limits, framing, regions, make_room)
    except (Fault, JobFailed):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as exc:
        raise Fault(ErrorCode.IMAGE_TOO_LARGE, f"{type(exc).__name__}: {exc}") from exc
    except UnidentifiedImageError as exc:
        begun = begins_as(data, limits.formats)
        code = ErrorCode.IMAGE_CORRUPT if begun else ErrorCode.IMAGE_UNSUPPORTED_FORMAT
        raise Fault(code, f"begins with {data[:16]!r}") from exc
    except Exception as exc:
        # Pillow's readers raise OSError, SyntaxError, ValueError, EOFError, struct.error and
        # whatever else a damaged file leads them to; each means that this file cannot be read.
        raise Fault(ErrorCode.IMAGE_CORRUPT, f"{type(exc).__name__}: {exc}") from exc
    finally:
        Image.MAX_IMAGE_PIXELS = others


def _decode(
    data: bytes,
    limits: ImageLimits,
    framing: Framing | None,
    regions: Sequence[Box] | None,
    make_room: Callable[[int], None],
) -> Decoded:
    enable(limits.formats)
    bare = strip(data)
    with Image.open(io.BytesIO(bare.data), formats=limits.formats) as image:
        width, height = image.size
        _check_size(image, limits)
        is_jpeg = image.format == "JPEG"
        if (
            is_jpeg
            and (scans := count_scans(bare.data, limits.max_jpeg_scans)) > limits.max_jpeg_scans
        ):
            raise Fault(ErrorCode.IMAGE_TOO_COMPLEX, f"{scans} scans or more")
        if is_jpeg and framing is not None and not regions:
            wanted = max(framing.place(width, height).resized)
            sampling = None if image.mode == "L" else JpegImagePlugin.get_sampling(image)
            if least := draft_px(limits.draft, image.size, sampling, wanted):
                image.draft(None, (least, least))
        mend_palette(image, data)
        make_room(image.width * image.height)
        image.load()
        _check_size(image, limits)
        exif, xmp = (image.info.get(name) or b"" for name in ("exif", "xmp"))
        orientation = exif_orientation(bare.exif or exif, bare.xmp or xmp)
        mend_transparency(image, data)
        upright = to_rgb(image, limits.alpha)
        if orientation in _UPRIGHT:
            if upright is not image:
                image.close()  # its pixels; of the three pictures two are held at a time
            upright = upright.transpose(_UPRIGHT[orientation])
        parts = _cut(upright, regions) if regions else iter([upright])
        if orientation >= 5:
            width, height = height, width
        facts = ImageFacts(
            format="MPO" if bare.several else image.format or "",
            width=width,
            height=height,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return Decoded(tuple(_pixels(part, framing) for part in parts), facts)


def _cut(image: Image.Image, regions: Sequence[Box]) -> Iterator[Image.Image]:
    try:
        return cut(image, regions)
    except ValueError as exc:
        invalid = ErrorCode.JOB_INVALID
        raise JobFailed(invalid, f"{PUBLIC_TEXT[invalid]} regions: {exc}") from exc


def _pixels(image: Image.Image, framing: Framing | None) -> NDArray[np.uint8]:
    return np.array(image, dtype=np.uint8) if framing is None else framing.frame(image)


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise Fault(ErrorCode.IMAGE_TOO_LARGE, f"{width} x {height} pixels")


def count_scans(data: bytes, limit: int) -> int:
    """Count the scans of a JPEG's first picture, stopping once there are more than `limit`.

    Walks the markers as a decoder does (ITU-T T.81, annex B): the segments it skips may hold
    anything, such as a thumbnail with scans of its own in the EXIF data.
    """
    scans, position, framed = 0, 0, False
    while scans <= limit and (found := JPEG_MARKER.search(data, position)):
        marker, position = found[1][0], found.end()
        if marker == _SOI:
            continue
        if marker == _EOI:
            break
        framed = framed or marker in _SOFS
        scans += framed and marker == _SOS
        # A length too small to hold itself: libjpeg goes on after it, and so may hidden scans.
        position += max(2, int.from_bytes(data[position : position + 2]))
    return scans
