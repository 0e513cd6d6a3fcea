"""A small BMP writer: core, info, V4 and V5 headers, every depth, both run-length codings."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB, RLE8, RLE4, BITFIELDS = 0, 1, 2, 3


def bmp(
    width: int,
    height: int,
    bits: int,
    data: bytes,
    *,
    palette: bytes = b"",
    compression: int = RGB,
    header: int = 40,
    masks: Sequence[int] = (),
    colours: int = 0,
) -> bytes:
    """Headers round rows that are encoded already; a negative height says: from the top.

    `header` is the size of the header: 12 (OS/2), 40, 108 or 124. `masks` stand in the last two,
    behind that of 40.
    """
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII", header, width, height, 1, bits, compression, len(data), 0, 0, colours, 0
        )
    if masks:
        info += struct.pack(f"<{len(masks)}I", *masks)
    info = info.ljust(header, b"\0")
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def rows(pixels: NDArray[Any], bits: int, top_down: bool = False) -> bytes:
    """Pixels [H, W] of `bits` bits, or [H, W, bytes], as rows padded to four bytes."""
    lines = pixels if top_down else pixels[::-1]
    out = []
    for line in lines:
        if bits >= 8:
            raw = line.astype(f"<u{bits // 8}" if line.ndim == 1 else np.uint8).tobytes()
        else:
            flat = (line[:, None].astype(np.uint8) >> np.arange(bits - 1, -1, -1)) & 1
            raw = np.packbits(flat.reshape(-1).astype(np.uint8)).tobytes()
        out.append(raw + bytes(-len(raw) % 4))
    return b"".join(out)


def quads(colours: NDArray[np.uint8], entry: int = 4) -> bytes:
    """A palette [N, 3] of RGB as BGR0 (or BGR, in a core header)."""
    return b"".join(bytes([b, g, r]) + bytes(entry - 3) for r, g, b in colours.tolist())


def run_lengths(pixels: NDArray[np.uint8], four: bool) -> bytes:
    """RLE8 or RLE4 rows from the bottom: runs, and where pixels differ, absolute pieces."""
    out = bytearray()
    for line in pixels[::-1].tolist():
        start = 0
        while start < len(line):
            end = start
            while end < len(line) and line[end] == line[start] and end - start < 255:
                end += 1
            if end - start < 3 and len(line) - start >= 3:
                end = start + min(len(line) - start, 9)
                raw = line[start:end]
                if four:
                    raw = raw + [0] * (len(raw) % 2)
                    raw = [high << 4 | low for high, low in zip(raw[::2], raw[1::2], strict=True)]
                out += bytes([0, end - start, *raw]) + bytes(len(raw) % 2)
            else:
                out += bytes([end - start, line[start] * 17 if four else line[start]])
            start = end
        out += b"\0\0"
    return bytes(out + b"\0\1")
