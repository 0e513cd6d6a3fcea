"""What the largest files within all limits cost: `python -m tests.images.costs [NAME...]`.

One line for each: seconds of the processor, address space and memory at their peaks, in MiB, of
a process that may have as much as a decoder (RLIMIT_AS), framing to 384 x 384.
"""

import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.images import bmp, gif, jpeg, png
from tests.images.orientation import exif
from tests.images.sample import saved
from tests.images.webp import extended, webp_chunks, webp_file
from worker.blip.framing import Framing
from worker.errors import Fault
from worker.image import ImageLimits, decode

WIDTH, HEIGHT = 16_383, 3_051  # 49,984,533 pixels
ADDRESS_SPACE_MIB = 1_536
MAX_BYTES = 20 * 2**20
LIMITS = ImageLimits(formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"), draft="off")
TURNED = exif(6)
APP1 = jpeg.segment(jpeg.APP1, b"Exif\0\0" + TURNED)
PALETTE = bytes(range(256)) * 3
GREYS = bytes(range(256)) * 4


def picture(depth: int, colour: int, *chunks: bytes, interlace: bool = False) -> bytes:
    """A PNG of one colour, a quarter turned."""
    size = depth // 8 * png.CHANNELS[colour]
    line = b"\0" + b"\x55" * size * WIDTH
    data = bytes(len(line) * (HEIGHT + 16)) if interlace else line * HEIGHT
    header = png.header(WIDTH, HEIGHT, depth, colour, int(interlace))
    pixels = [png.chunk(b"IDAT", zlib.compress(data, 1)), png.chunk(b"IEND")]
    return b"".join([png.MAGIC, header, png.chunk(b"eXIf", TURNED), *chunks, *pixels])


def noisy(mode: str) -> Image.Image:
    small = Image.effect_noise((WIDTH // 8, HEIGHT // 8), 80)
    return small.resize((WIDTH, HEIGHT)).convert(mode)


def with_64_scans(**options: Any) -> bytes:
    """A progressive JPEG of one colour, its costliest scan repeated."""
    data = saved(
        Image.new("RGB", (WIDTH, HEIGHT), (10, 200, 30)), "JPEG", progressive=True, **options
    )
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    repeated = data[first:second] * min(54, (MAX_BYTES - len(data) - 100) // (second - first))
    return jpeg.with_segments(data[:-2] + repeated + data[-2:], APP1)


def animated_webp() -> bytes:
    size = WIDTH, 3_000
    still = saved(Image.new("RGBA", size, (9, 200, 30, 99)), "WEBP", lossless=True, method=0)
    body = webp_chunks(still)[b"VP8L"]
    place = b"".join(v.to_bytes(3, "little") for v in (0, 0, size[0] - 1, size[1] - 1, 100)) + b"\0"
    packed = place + b"VP8L" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    frame = b"ANMF", packed
    chunks = extended(size, 0x1A), (b"ANIM", bytes(6)), frame, frame, (b"EXIF", TURNED)
    return webp_file(*chunks)


def small_gif(*extensions: bytes) -> bytes:
    frame = gif.Frame(np.zeros((9, 9), np.uint8))
    return gif.gif((9, 9), [frame], PALETTE, extensions=extensions)


def rle(bits: int, data: bytes, height: int = HEIGHT) -> bytes:
    palette, kind = (GREYS[:64], bmp.RLE4) if bits == 4 else (GREYS, bmp.RLE8)
    return bmp.bmp(WIDTH, height, bits, data, palette=palette, compression=kind)


FILES: dict[str, Callable[[], bytes]] = {
    "png-rgba": lambda: picture(8, 6),
    "png-rgba-16": lambda: picture(16, 6),
    "png-rgba-16-interlaced": lambda: picture(16, 6, interlace=True),
    "png-rgb-16": lambda: picture(16, 2),
    "png-grey-16": lambda: picture(16, 0),
    "png-grey-16-transparent": lambda: picture(16, 0, png.chunk(b"tRNS", b"\x55\x55")),
    "png-grey-alpha": lambda: picture(8, 4),
    "png-palette": lambda: picture(8, 3, png.chunk(b"PLTE", PALETTE)),
    "png-palette-alpha": lambda: picture(
        8, 3, png.chunk(b"PLTE", PALETTE), png.chunk(b"tRNS", bytes(range(256)))
    ),
    "png-rgb-transparent": lambda: picture(8, 2, png.chunk(b"tRNS", b"\0\x55" * 3)),
    "png-tiny-chunks": lambda: png.plain(png.chunk(b"prVt") * 1_747_000),
    "png-tiny-idats": lambda: png.plain(png.chunk(b"IDAT") * 1_747_000),
    "jpeg-rgb": lambda: jpeg.with_segments(saved(noisy("RGB"), "JPEG", quality=60), APP1),
    "jpeg-cmyk": lambda: jpeg.with_segments(saved(noisy("CMYK"), "JPEG", quality=30), APP1),
    "jpeg-cmyk-progressive": lambda: jpeg.with_segments(
        saved(noisy("CMYK"), "JPEG", quality=30, progressive=True), APP1
    ),
    "jpeg-64-scans": lambda: with_64_scans(subsampling="4:4:4"),
    "jpeg-tiny-segments": lambda: jpeg.with_segments(
        saved(Image.new("RGB", (9, 9)), "JPEG"), jpeg.segment(jpeg.COM) * 5_240_000
    ),
    "webp-lossy": lambda: saved(noisy("RGB"), "WEBP", quality=50, method=0, exif=TURNED),
    "webp-lossless": lambda: saved(
        noisy("RGB").quantize(16).convert("RGB"),
        "WEBP",
        lossless=True,
        method=0,
        quality=0,
        exif=TURNED,
    ),
    "webp-animated": animated_webp,
    "gif": lambda: saved(noisy("L").quantize(16), "GIF"),
    "gif-transparent": lambda: saved(Image.new("P", (WIDTH, HEIGHT), 7), "GIF", transparency=7),
    "gif-tiny-blocks": lambda: small_gif(b"!\xfe" + b"\1a" * 10_480_000 + b"\0"),
    "bmp-rle8-empty-lines": lambda: rle(8, b"\1\1\0\0" * HEIGHT),
    "bmp-rle8-runs-of-one": lambda: rle(8, (b"\1\7" * WIDTH + b"\0\0") * 638 + b"\0\1"),
    "bmp-rle4-long-runs": lambda: rle(4, (b"\xff\x12" * 65 + b"\0\0") * HEIGHT),
    "avif": lambda: saved(noisy("RGBA"), "AVIF", quality=20, speed=10),
}


def figures(name: str, address_space_mib: int = ADDRESS_SPACE_MIB) -> str:
    """The line of a file, or what its process ended with."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(FILES[name]())
        file.flush()
        command = [sys.executable, "-m", "tests.images.costs", "--child", file.name]
        command.append(str(address_space_mib))
        done = subprocess.run(command, capture_output=True, text=True)
    return f"{name:24s} {done.stdout.strip() or done.stderr}"


def child(path: str, address_space_mib: str) -> None:
    data = Path(path).read_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (int(address_space_mib) << 20,) * 2)
    begun = time.process_time()
    try:
        facts = decode(data, LIMITS, Framing("stretch", (384, 384), 16, 3, (1, 2, 3))).facts
        outcome = f"{facts.format} {facts.width}x{facts.height}"
    except Fault as fault:
        outcome = str(fault)
    took_s = time.process_time() - begun
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    space, memory = (int(status[peak].split()[0]) >> 10 for peak in ("VmPeak", "VmHWM"))
    file_mib = len(data) / 2**20
    print(f"{file_mib:5.1f} MiB file {took_s:5.2f} s {space:5} space {memory:5} memory  {outcome}")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    Image.MAX_IMAGE_PIXELS = None
    for name in sys.argv[1:] or FILES:
        print(figures(name), flush=True)


if __name__ == "__main__":
    main()
