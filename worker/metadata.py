"""What of an image file is no pixels: left out before Pillow sees it, but for the orientation.

Pillow reads metadata in Python, and as it opens a file: 20 MiB of tiny EXIF segments in a JPEG of
one pixel would keep it busy for minutes, as would a PNG with a profile of 256 KiB inflated from
every 300 bytes. What is left out can do no harm, and its damage does none to the picture.
"""

import re
import struct
from dataclasses import dataclass

__all__ = ["JPEG_MARKER", "Bare", "exif_orientation", "strip"]

# A JPEG marker (ITU-T T.81, B.1.1): not a stuffed zero, a restart or TEM, which stand alone. Only
# the last of several fill bytes is matched: `\xff+` would take quadratic time over a run of them.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_SOS = 0xDA
# SOI, EOI and what is reserved: an error where a segment is expected.
_ENDS = frozenset({*range(0x02, 0xC0), 0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)})
_APPS_AND_COM = frozenset({*range(0xE0, 0xF0), 0xFE})
_COLOURS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}  # what says how they are coded
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MPF = b"MPF\0"
_GAIN_MAP = b' hdrgm:Version="'

_GIF_BLOCK = re.compile(rb"[!,;]")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp\0"

_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # TIFF 6.0, section 2: BYTE, SHORT, LONG
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


@dataclass(frozen=True, slots=True)
class Bare:
    """A file that shows the same picture, and of what was left out, what is asked for.

    Attributes:
        data: the file.
        exif, xmp: what may say how the picture stands.
        several: whether it is a JPEG with further pictures behind it (CIPA DC-007), other than
            the gain map of its own bright parts.
    """

    data: bytes
    exif: bytes = b""
    xmp: bytes = b""
    several: bool = False


def strip(data: bytes) -> Bare:
    """Leave out the metadata of a JPEG, PNG or GIF, other files stay as they are.

    A PNG's animation is left out as well: what it shows without is the first picture.

    What is damaged stays damaged: a decoder finds out.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Bare(_gif(data))
    return Bare(data)


def _jpeg(data: bytes) -> Bare:
    """The segments before the first scan, but for applications' and comments (T.81, B.2.4)."""
    view = memoryview(data)
    kept, exif, xmp, several = [view[:2]], [], b"", False
    position = 2
    while found := JPEG_MARKER.search(data, position):
        marker, start = found[1][0], found.end()
        if marker == _SOS:
            kept.append(view[found.start() :])
            break
        if marker in _ENDS:
            break  # libjpeg reads no further; Pillow would, into segments as well
        # A length too small to hold itself: libjpeg goes on after it.
        position = start + max(2, int.from_bytes(data[start : start + 2]))
        needed = marker in _COLOURS and data.startswith(_COLOURS[marker], start + 2, position)
        if needed or marker not in _APPS_AND_COM:
            kept.append(view[found.start() : position])
        elif marker == 0xE1 and data.startswith(_EXIF, start + 2, position):
            exif.append(view[start + 2 + len(_EXIF) : position])
        elif marker == 0xE1 and data.startswith(_XMP, start + 2, position):
            xmp = data[start + 2 : position]
        elif marker == 0xE2 and data.startswith(_MPF, start + 2, position):
            several = True
    return Bare(b"".join(kept), b"".join(exif), xmp, several and _GAIN_MAP not in xmp)


def _png(data: bytes) -> Bare:
    """The critical chunks and tRNS (PNG, third edition, 5.4: the first letter is a capital)."""
    view = memoryview(data)
    kept: list[memoryview] = []
    exif = xmp = b""
    first, position = 0, len(_PNG)  # of what is kept and not yet noted; of the next chunk
    while position + 8 <= len(data):
        name = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if end > len(data):
            break
        if not name.isalpha():  # damage, behind which Pillow may find chunks again
            return Bare(b"".join([*kept, view[first:position]]), exif, xmp)
        if name[0] & 0x20 and name != b"tRNS":
            if position > first:
                kept.append(view[first:position])
            first = end
            if name == b"eXIf":
                exif = data[position + 8 : end - 4]
            elif name == b"iTXt" and data.startswith(_PNG_XMP, position + 8, end - 4):
                xmp = data[position + 8 : end - 4]
        position = end
        if name == b"IEND":
            break
    return Bare(b"".join([*kept, view[first:]]) if kept else data, exif, xmp)


def _gif(data: bytes) -> bytes:
    """Of the extensions before the first frame, its control alone (GIF89a, 23)."""
    control, start = b"", 13 + (3 << (data[10] & 7) + 1 if data[10:11] > b"\x7f" else 0)
    at = start
    while (found := _GIF_BLOCK.search(data, at)) and found[0] == b"!":
        begin, at = found.start(), found.end() + 1
        while size := int.from_bytes(data[at : at + 1]):
            at += size + 1
        at += 1
        if data[begin + 1 : begin + 2] == b"\xf9":
            control = data[begin:at]
    return b"".join((data[:start], control, memoryview(data)[found.start() :] if found else b""))


def exif_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation of EXIF data (Exif 2.32, 4.6.4 A), else of XMP, 1 to 8.

    Reads that one field; 1 where there is none, or where the data is damaged.
    """
    tiff = exif.removeprefix(_EXIF)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        [directory] = struct.unpack_from(f"{order}I", tiff, 4) if order else [0]
        [entries] = struct.unpack_from(f"{order}H", tiff, directory) if order else [0]
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, at)
            if tag == _ORIENTATION:
                [value] = struct.unpack_from(f"{order}{_INTEGERS[kind]}", tiff, at + 8)
                return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        return 1
    said = _XMP_ORIENTATION.search(xmp)
    return int(said[1]) if said else 1
