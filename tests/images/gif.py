"""A small GIF writer: frames of any size and place, palettes of any level, no compression."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAILER = b";"


@dataclass(frozen=True)
class Frame:
    """Indices [H, W] at a place of the screen; `transparent` an index, or none."""

    indices: NDArray[Any]
    left: int = 0
    top: int = 0
    palette: bytes = b""
    transparent: int | None = None
    interlaced: bool = False
    disposal: int = 0


def screen(width: int, height: int, palette: bytes = b"", version: bytes = b"89a") -> bytes:
    flags = 0x80 | _bits(palette) - 1 if palette else 0
    return b"GIF" + version + struct.pack("<HHBBB", width, height, flags, 0, 0) + palette


def gif(
    size: tuple[int, int],
    frames: Sequence[Frame],
    palette: bytes = b"",
    version: bytes = b"89a",
    extensions: Sequence[bytes] = (),
) -> bytes:
    """A file; palettes hold 2, 4, ... 256 colours; extensions lie before the frames."""
    parts = [screen(*size, palette, version), *extensions]
    parts += [frame_bytes(frame, palette) for frame in frames]
    return b"".join([*parts, TRAILER])


def frame_bytes(frame: Frame, palette: bytes = b"") -> bytes:
    height, width = frame.indices.shape
    control = b""
    if frame.transparent is not None or frame.disposal:
        flags = frame.disposal << 2 | (frame.transparent is not None)
        control = b"!\xf9\x04" + struct.pack("<BHBB", flags, 0, frame.transparent or 0, 0)
    flags = (0x80 | _bits(frame.palette) - 1 if frame.palette else 0) | 0x40 * frame.interlaced
    lines = frame.indices
    if frame.interlaced:
        lines = np.concatenate([lines[0::8], lines[4::8], lines[2::4], lines[1::2]])
    place = struct.pack("<HHHHB", frame.left, frame.top, width, height, flags)
    bits = max(2, _bits(frame.palette or palette) if frame.palette or palette else 8)
    return control + b"," + place + frame.palette + lzw(lines.reshape(-1).tolist(), bits)


def lzw(indices: Sequence[int], bits: int) -> bytes:
    """Literal codes of one width, the table cleared before it would widen them."""
    clear, stop = 1 << bits, (1 << bits) + 1
    codes = []
    for start in range(0, len(indices), clear - 2):
        codes += [clear, *indices[start : start + clear - 2]]
    packed = 0
    for place, code in enumerate([*codes, stop]):
        packed |= code << place * (bits + 1)
    raw = packed.to_bytes((len(codes) + 1) * (bits + 1) // 8 + 1, "little")
    return bytes([bits]) + sub_blocks(raw)


def sub_blocks(data: bytes) -> bytes:
    pieces = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def extension(label: int, *blocks: bytes) -> bytes:
    return bytes([0x21, label]) + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


def _bits(palette: bytes) -> int:
    return max(1, (len(palette) // 3 - 1).bit_length())
