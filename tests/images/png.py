"""A small PNG writer (PNG, third edition) that can also say what it should not."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type: grey, colour, palette, grey and alpha, colour and alpha."""
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip

Samples = NDArray[Any]


def chunk(name: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A chunk; `length` lies about its size."""
    size = len(data) if length is None else length
    return struct.pack(">I", size) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(
    width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0, method: int = 0
) -> bytes:
    data = struct.pack(">IIBBBBB", width, height, depth, colour, method, 0, interlace)
    return chunk(b"IHDR", data)


def png(
    samples: Samples,
    depth: int = 8,
    colour: int = 0,
    *,
    interlace: bool = False,
    before: Sequence[bytes] = (),
    after: Sequence[bytes] = (),
    filters: Sequence[int] = (0, 1, 2, 3, 4),
    idat_bytes: int | None = None,
    empty_idats: bool = False,
) -> bytes:
    """Encode samples [H, W, channels]; the lines take the filters in turn.

    `before` and `after` are chunks on either side of the image data, which is cut into pieces of
    `idat_bytes`, with `empty_idats` round each.
    """
    height, width = samples.shape[:2]
    packed = zlib.compress(_scanlines(samples, depth, interlace, filters), 1)
    size = idat_bytes or max(1, len(packed))
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    if empty_idats:
        pieces = [piece for full in pieces for piece in (b"", full, b"")]
    return b"".join(
        [
            MAGIC,
            header(width, height, depth, colour, int(interlace)),
            *before,
            *(chunk(b"IDAT", piece) for piece in pieces),
            *after,
            chunk(b"IEND"),
        ]
    )


def plain(
    *chunks: bytes, idat: bytes = zlib.compress(b"\0\x80"), size: bytes | None = None
) -> bytes:
    """A grey pixel, with chunks before it; or whatever `size` (an IHDR) and `idat` say."""
    ends = [chunk(b"IDAT", idat), chunk(b"IEND")]
    return b"".join([MAGIC, size or header(1, 1), *chunks, *ends])


def _scanlines(samples: Samples, depth: int, interlace: bool, filters: Sequence[int]) -> bytes:
    if not interlace:
        return _filtered(samples, depth, filters)
    return b"".join(
        _filtered(samples[y::dy, x::dx], depth, filters)
        for x, y, dx, dy in _ADAM7
        if samples[y::dy, x::dx].size
    )


def _filtered(samples: Samples, depth: int, filters: Sequence[int]) -> bytes:
    lines = [_packed(line.reshape(-1), depth) for line in samples]
    step = max(1, samples.shape[2] * depth // 8)
    above = np.zeros(len(lines[0]), np.int16)
    out = []
    for number, line in enumerate(lines):
        kind = filters[number % len(filters)]
        left = np.concatenate([np.zeros(step, np.int16), line])[: len(line)]
        corner = np.concatenate([np.zeros(step, np.int16), above])[: len(line)]
        by = (0, left, above, (left + above) // 2, _paeth(left, above, corner))[kind]
        out.append(bytes([kind]) + ((line - by) % 256).astype(np.uint8).tobytes())
        above = line
    return b"".join(out)


def _packed(line: Samples, depth: int) -> NDArray[np.int16]:
    if depth == 16:
        packed = np.frombuffer(line.astype(">u2").tobytes(), np.uint8)
    elif depth == 8:
        packed = line.astype(np.uint8)
    else:
        bits = (line[:, None].astype(np.uint8) >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(-1).astype(np.uint8))
    return packed.astype(np.int16)


def _paeth(left: Samples, above: Samples, corner: Samples) -> Samples:
    guess = left + above - corner
    a, b, c = abs(guess - left), abs(guess - above), abs(guess - corner)
    return np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
