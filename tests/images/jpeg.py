"""Parts of JPEG files (ITU-T T.81), and kinds of it that Pillow does not write."""

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SOF0, SOF3, DHT, SOI, EOI, SOS, DNL, DRI = 0xC0, 0xC3, 0xC4, 0xD8, 0xD9, 0xDA, 0xDC, 0xDD
APP1, APP2, APP14, COM = 0xE1, 0xE2, 0xEE, 0xFE


def segment(marker: int, body: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The file with segments right behind its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def more_scans(jpeg: bytes, extra: int, between: bytes = b"") -> bytes:
    """The file with its last scan repeated before its end, `between` before each repetition."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + (between + jpeg[last:-2]) * extra + jpeg[-2:]


def frame_at(jpeg: bytes) -> int:
    """Where the frame header's marker is, in a file that Pillow wrote."""
    return max(jpeg.find(bytes([0xFF, marker, 0, 8 + 3 * n])) for marker in (0xC0, 0xC2)
               for n in (1, 3, 4))  # fmt: skip


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = frame_at(jpeg) + 5
    return jpeg[:at] + height.to_bytes(2) + width.to_bytes(2) + jpeg[at + 4 :]


def with_lines_told_later(jpeg: bytes, height: int) -> bytes:
    """A height of 0 in the frame header, and a DNL segment after the first scan (B.2.5)."""
    at = frame_at(jpeg) + 5
    return jpeg[:at] + b"\0\0" + jpeg[at + 2 : -2] + segment(DNL, height.to_bytes(2)) + jpeg[-2:]


def with_precision(jpeg: bytes, bits: int) -> bytes:
    at = frame_at(jpeg) + 4
    return jpeg[:at] + bytes([bits]) + jpeg[at + 1 :]


def lossless(grey: NDArray[np.uint8]) -> bytes:
    """A lossless JPEG of grey (T.81, annex H): each sample less its left neighbour."""
    height, width = grey.shape
    values = grey.astype(int)
    guess = np.empty_like(values)
    guess[:, 1:] = values[:, :-1]
    guess[1:, 0] = values[:-1, 0]
    guess[0, 0] = 128
    bits = "".join(map(_difference, (values - guess).reshape(-1).tolist()))
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    frame = bytes([8]) + height.to_bytes(2) + width.to_bytes(2) + bytes([1, 1, 0x11, 0])
    # Nine codes of four bits, one for each length of a difference.
    table = bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)])
    parts: Sequence[bytes] = (
        bytes([0xFF, SOI]),
        segment(SOF3, frame),
        segment(DHT, table),
        segment(SOS, bytes([1, 1, 0, 1, 0, 0])),
        coded,
        bytes([0xFF, EOI]),
    )
    return b"".join(parts)


def _difference(value: int) -> str:
    size = abs(value).bit_length()
    tail = value if value > 0 else value + (1 << size) - 1
    return f"{size:04b}" + (f"{tail:0{size}b}" if size else "")


# Made by libjpeg-turbo's cjpeg from 32 x 24 pixels: what Pillow cannot write.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT0//yQARCAAYACADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIR"
    "AxEAPwD/AJqon3pEkcs4SIu0dLl/3xam8BF24BXsn/uUXzd7sKs7o2q++Ke6G6maurmsI7cBUQ7MIMjGEc2icT11"
    "V6RA/9k="
)
ARITHMETIC_PROGRESSIVE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT0//ygARCAAYACADASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAA"
    "Af8ANYM15AyXGLO2PtX5g4kSYcH/zAAEEAX/2gAIAQEAAQUCEqHNR4JJ1UD/zAAEEQX/2gAIAQMBAT8BFCfvmmNE"
    "FED/zAAEEQX/2gAIAQIBAT8BDot4/8wABBAF/9oACAEBAAY/AsD/zAAEEAX/2gAIAQEAAT8hvID/2gAMAwEAAgAD"
    "AAAAENrRm4D/zAAEEQX/2gAIAQMBAT8Qg//MAAQRBf/aAAgBAgEBPxADHmD/zAAEEAX/2gAIAQEAAT8QTGO8BzHo"
    "/9k="
)
SAMPLED_4_1_1 = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAYACADAUEAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAA"
    "BAb/xAAXEAADAQAAAAAAAAAAAAAAAAAAAwRh/8QAFgEBAQEAAAAAAAAAAAAAAAAABQMC/8QAGBEAAgMAAAAAAAAA"
    "AAAAAAAAAAIDBTH/2gAMAwEAAhEDEQA/AIRMeDkx4OTHg5MeG0YYrJsCJjwcmPByY8HJjwijBVZNgRMeDkx4OTHg"
    "5MeEUYKrJsP/2Q=="
)
SAMPLED_4_4_0 = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAYACADARIAAhEBAxEB/8QAFwABAQEBAAAAAAAAAAAAAAAA"
    "BQAEBv/EABcQAAMBAAAAAAAAAAAAAAAAAAADBGH/xAAYAQEBAAMAAAAAAAAAAAAAAAAFAgMEB//EABgRAAMBAQAA"
    "AAAAAAAAAAAAAAABAwIE/9oADAMBAAIRAxEAPwDhEx4PpjwxrZpy7A5MeD6Y8LWxGXYHJjwfTHha2Iy7A5MeD6Y8"
    "LWxGXYZEx4QYmzlMq6NyY8ItNiMq6NyY8ItNiMq6NyY8ItNiMq6P/9k="
)
SAMPLED_EACH_ITS_OWN_WAY = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAYACADASIAAhIBAyEB/8QAFwABAQEBAAAAAAAAAAAAAAAA"
    "BAAFBv/EABcQAAMBAAAAAAAAAAAAAAAAAAADBGH/xAAYAQADAQEAAAAAAAAAAAAAAAAAAwUEB//EABcRAAMBAAAA"
    "AAAAAAAAAAAAAAACAwT/2gAMAwEAAhEDEQA/AOETHg5MeGimPByY8BWEqxjlsKMthnJjwcmPDRTHg5MeGxWEqxRl"
    "sKMtgRMeDkx4RGNWA5TKrFGVWHJjwcmPCIcrAUZVYoyqx//Z"
)
