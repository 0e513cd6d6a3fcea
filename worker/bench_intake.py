"""`captionq-worker bench intake`: what the guards of fetching and decoding cost.

Guarded is what a worker does: the guarded HTTP source, then the sandbox. Bare is what one would
write without a thought for strangers: a plain connection pool, then Pillow in the same thread.
Both fetch the same JPEGs over keep-alive from a server on this machine, and make the same pixels.
"""

import io
import json
import multiprocessing
import socket
import socketserver
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Annotated

from typer import Option

from worker.blip.framing import Framing
from worker.flags import AsJson

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import numpy as np
    from numpy.typing import NDArray

Fetch = Callable[[str], bytes]
SIDE_PX = 384
BICUBIC = 3


def bench_intake(
    images: Annotated[int, Option(min=1, help="Images in each round.")] = 400,
    rounds: Annotated[int, Option(min=1, help="Rounds; their order alternates.")] = 7,
    threads: Annotated[int, Option(min=1, help="Images in progress at once.")] = 16,
    decoders: Annotated[int | None, Option(min=1, help="As CAPTIONQ_DECODERS.")] = None,
    kilobytes: Annotated[int, Option(min=10, max=2_000, help="About the size of a JPEG.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Fetching and decoding JPEGs with all guards, and without: images per second, side by side."""
    from worker.fetch.http import HttpLimits, HttpSource
    from worker.fetch.netguard import parse_allow
    from worker.image import ImageLimits
    from worker.sandbox import Sandbox

    jpeg = _jpeg(kilobytes * 1_000)
    with ExitStack() as stack:
        port = stack.enter_context(_served(jpeg))
        url = f"http://127.0.0.1:{port}/image.jpg"
        source = HttpSource(HttpLimits(), [parse_allow(f"127.0.0.1/32:{port}")])
        stack.callback(source.close)
        sandbox = Sandbox(ImageLimits(), decoders=decoders)
        stack.callback(sandbox.close)
        sandbox.start()
        plain = stack.enter_context(_plain_fetch())
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        framing = Framing("stretch", (SIDE_PX, SIDE_PX), 16, BICUBIC, (0, 0, 0))

        ways: dict[str, Callable[[int], object]] = {
            "guarded": lambda _: sandbox.decode(source.fetch(url, time.monotonic() + 60), framing),
            "bare": lambda _: _bare_decode(plain(url)),
            "guarded fetch": lambda _: source.fetch(url, time.monotonic() + 60),
            "bare fetch": lambda _: plain(url),
            "guarded decode": lambda _: sandbox.decode(jpeg, framing),
            "bare decode": lambda _: _bare_decode(jpeg),
        }
        for way in ways.values():
            list(pool.map(way, range(2 * threads)))
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways) if number % 2 else reversed(ways):
                began_s = time.perf_counter()
                list(pool.map(ways[name], range(images)))
                rates[name].append(images / (time.perf_counter() - began_s))
    _report(rates, len(jpeg), as_json)


def _report(rates: "dict[str, list[float]]", size: int, as_json: bool) -> None:
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {
        f"guarded{part} / bare{part}": statistics.median(
            ours / theirs
            for ours, theirs in zip(rates[f"guarded{part}"], rates[f"bare{part}"], strict=True)
        )
        for part in ("", " fetch", " decode")
    }
    if as_json:
        print(json.dumps({"jpeg_bytes": size, "images_per_s": medians, "ratios": ratios}))
        return
    print(f"JPEGs of {size:,} bytes; medians of {len(rates['bare'])} rounds, in images/s")
    for name, rate in medians.items():
        print(f"  {name:<16}{rate:>9.1f}")
    for name, ratio in ratios.items():
        print(f"  {name:<32}{ratio:>6.3f}")


def _bare_decode(data: bytes) -> "NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling(BICUBIC)))


@contextmanager
def _plain_fetch() -> Iterator[Fetch]:
    import httpcore2

    with httpcore2.ConnectionPool(max_connections=64, max_keepalive_connections=64) as pool:
        yield lambda url: pool.request("GET", url).content


def _jpeg(size: int) -> bytes:
    """A JPEG of about so many bytes: smooth noise, as photographs are."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for scale in count(1):
        width, height = 40 * scale, 30 * scale
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        fine = rng.normal(0, 4, (height, width, 3))
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=float)
        picture = Image.fromarray(np.clip(smooth + fine, 0, 255).astype(np.uint8))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        if file.tell() >= size:
            return file.getvalue()
    raise AssertionError


@contextmanager
def _served(body: bytes) -> Iterator[int]:
    """The port of a server on this machine that answers every request with `body`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(body, theirs), daemon=True)
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.kill()
        process.join()


def _serve(body: bytes, told: "Connection[int, int]") -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = b""
            while piece := self.request.recv(65_536):
                asked += piece
                while b"\r\n\r\n" in asked:
                    asked = asked.partition(b"\r\n\r\n")[2]
                    self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        told.send(server.server_address[1])
        server.serve_forever()
