"""The container of WebP files (RFC 9649)."""

import struct


def webp_file(*chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF file (RFC 9649, 2.3)."""
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_chunks(data: bytes) -> dict[bytes, bytes]:
    chunks, at = {}, 12
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks[data[at : at + 4]] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return chunks


def extended(size: tuple[int, int], flags: int) -> tuple[bytes, bytes]:
    """A VP8X chunk: 0x20 ICC, 0x10 alpha, 0x08 EXIF, 0x04 XMP, 0x02 animation."""
    width, height = ((side - 1).to_bytes(3, "little") for side in size)
    return b"VP8X", bytes([flags, 0, 0, 0]) + width + height
