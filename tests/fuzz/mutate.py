"""Damage to files, the same for the same seed."""

import random
import zlib
from collections.abc import Callable, Sequence

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 4_095, 16_383, 16_384, 32_767, 32_768,
               65_535, 65_536, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)  # fmt: skip


def mutated(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of the files, each format as often, with one to eight things done to it."""
    begin = rng.choice(sorted({data[:2] for data in corpus}))
    data = bytearray(rng.choice([data for data in corpus if data.startswith(begin)]))
    for _ in range(min(rng.randint(1, 8), rng.randint(1, 8))):
        rng.choice(_WAYS)(rng, data, corpus)
    if rng.random() < 0.7:
        _mend_checksums(data)
    return bytes(data)


def _mend_checksums(data: bytearray) -> None:
    """Those of a PNG: with a wrong one, it is looked at no further."""
    at = 8 if data.startswith(b"\x89PNG") else len(data)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4


def _place(rng: random.Random, data: bytearray) -> int:
    """An offset; headers are hit more often than their share."""
    return rng.randrange(min(len(data), rng.choice((32, 128, 1 << 30))) or 1)


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _insert(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at:at] = rng.choice((rng.randbytes(1), rng.randbytes(rng.randint(1, 40)), b"\xff" * 9))


def _delete(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, data)
    del data[at : at + rng.choice((1, 2, 4, rng.randint(1, 200)))]


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, data)
    piece = data[at : at + rng.randint(1, 300)]
    data[at:at] = piece * rng.choice((1, 1, 2, 50))


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _splice(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = rng.choice(corpus)
    start = rng.randrange(len(other) or 1)
    at = _place(rng, data)
    data[at : at + rng.choice((0, 64))] = other[start : start + rng.choice((16, 256, 1 << 20))]


def _length(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A number of one, two, three or four bytes in either order becomes another."""
    size, at = rng.choice((1, 2, 2, 3, 4, 4)), _place(rng, data)
    order = rng.choice(("little", "big"))
    found = int.from_bytes(data[at : at + size], order)
    value = rng.choice((rng.choice(INTERESTING), found + 1, found - 1, found * 2, found // 2))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)


_WAYS: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _set, _set, _insert, _delete, _repeat, _cut, _splice, _length, _length, _length,
)  # fmt: skip
