"""How image files begin: that tells a damaged image from something else altogether."""

import re

__all__ = ["BEGINNINGS", "BEGINNING_BYTES", "begins_as", "kind_of"]

# Pillow's names. ISO media files name their brand (ISO/IEC 23008-12, annex B; AVIF 1.1, section 6).
BEGINNINGS = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "AVIF": re.compile(rb"....ftyp(avi[fs]|mif1|msf1)", re.DOTALL),
    "HEIF": re.compile(rb"....ftyp(he[iv][cxms]|mif1|msf1)", re.DOTALL),
}

BEGINNING_BYTES = 12
"""So many bytes of a file are enough to tell."""


def begins_as(data: bytes, formats: tuple[str, ...]) -> bool:
    """Whether a file begins as one of these formats."""
    return any(BEGINNINGS[name].match(data) for name in formats)


def kind_of(data: bytes) -> str | None:
    """The format that a file begins as; None for none of those known here.

    >>> kind_of(b"GIF89a..."), kind_of(b"<html>")
    ('GIF', None)
    """
    return next((name for name in BEGINNINGS if begins_as(data, (name,))), None)
