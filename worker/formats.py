"""Which formats images may have, and what each needs before Pillow reads it.

Pillow reads some forty, and most security fixes are for those that nobody sends: only what is
named here is ever tried.
"""

import re
from importlib.util import find_spec

__all__ = ["DEFAULT_FORMATS", "begins_as", "enable", "parse_formats"]

DEFAULT_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Pillow's names, and how a file of each begins: that tells a damaged image from something else
# altogether. ISO media files name their brand (ISO/IEC 23008-12, annex B; AVIF 1.1, section 6).
_BEGINNINGS = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "AVIF": re.compile(rb"....ftyp(avi[fs]|mif1|msf1)", re.DOTALL),
    "HEIF": re.compile(rb"....ftyp(he[iv][cxms]|mif1|msf1)", re.DOTALL),
}
_ALIASES = {"JPG": "JPEG", "HEIC": "HEIF"}


def parse_formats(text: str) -> tuple[str, ...]:
    """Pillow's names of a comma-separated list, in any case, each once.

    Raises:
        ValueError: with what may stand there; also when HEIF is named and its reader is missing.
    """
    given = [name.strip().upper() for name in text.split(",")]
    names = tuple(dict.fromkeys(_ALIASES.get(name, name) for name in given if name))
    refused = [name for name in names if name not in _BEGINNINGS]
    if refused or not names:
        raise ValueError(
            f"IMAGE_FORMATS: {', '.join(refused) or 'nothing'} is not accepted; "
            f"it may hold {', '.join(_BEGINNINGS)}"
        )
    if "HEIF" in names and find_spec("pillow_heif") is None:
        raise ValueError('IMAGE_FORMATS: HEIF needs an extra: pip install "captionq[heic]"')
    return names


def enable(formats: tuple[str, ...]) -> None:
    """Have Pillow ready to read these formats; costs nothing but for the first time.

    Raises:
        ImportError: HEIF is among them, and its reader is missing.
    """
    if "HEIF" in formats:
        from PIL import Image

        if "HEIF" not in Image.OPEN:
            import pillow_heif

            pillow_heif.register_heif_opener(
                thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
            )
    if "AVIF" in formats:
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one image has one core


def begins_as(data: bytes, formats: tuple[str, ...]) -> bool:
    """Whether a file begins as one of these formats."""
    return any(_BEGINNINGS[name].match(data) for name in formats)
