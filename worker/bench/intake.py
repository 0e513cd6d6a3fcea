"""`captionq-worker bench intake`: what the guards of fetching and decoding cost.

Guarded is what a worker does: the guarded HTTP source, then the sandbox. Bare is what one would
write without a thought for strangers: a plain connection pool, then Pillow in the same thread.
Both fetch the same JPEGs over keep-alive from a server on this machine, and make the same pixels.
"""

import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Annotated

from typer import Option

from worker.bench.images import MAX_PER_HOST, jpeg, served
from worker.blip.framing import PUBLISHED
from worker.flags import AsJson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Fetch = Callable[[], bytes]
Decode = Callable[[bytes], object]


def bench_intake(
    images: Annotated[int, Option(min=1, help="Images in each round.")] = 400,
    rounds: Annotated[int, Option(min=1, help="Rounds; their order alternates.")] = 7,
    threads: Annotated[int, Option(min=1, help="Images in progress at once.")] = 16,
    decoders: Annotated[int | None, Option(min=1, help="As CAPTIONQ_DECODERS.")] = None,
    kilobytes: Annotated[int, Option(min=10, max=2_000, help="About the size of a JPEG.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Fetching and decoding JPEGs with all guards, and without: images per second, side by side."""
    file = jpeg(kilobytes * 1_000)
    with ExitStack() as stack:
        port = stack.enter_context(served(file))
        fetch, decode = stack.enter_context(guarded(port, decoders))
        plain = stack.enter_context(_plain_fetch(port))
        pool = stack.enter_context(ThreadPoolExecutor(threads))

        ways: dict[str, Callable[[int], object]] = {
            "guarded": lambda _: decode(fetch()),
            "bare": lambda _: _bare_decode(plain()),
            "guarded fetch": lambda _: fetch(),
            "bare fetch": lambda _: plain(),
            "guarded decode": lambda _: decode(file),
            "bare decode": lambda _: _bare_decode(file),
        }
        for way in ways.values():
            list(pool.map(way, range(2 * threads)))
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways) if number % 2 else reversed(ways):
                began_s = time.perf_counter()
                list(pool.map(ways[name], range(images)))
                rates[name].append(images / (time.perf_counter() - began_s))
    _report(rates, len(file), as_json)


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
    return np.asarray(image.resize(PUBLISHED.size, Image.Resampling(PUBLISHED.resample)))


@contextmanager
def guarded(port: int, decoders: int | None = None) -> Iterator[tuple[Fetch, Decode]]:
    """What a worker fetches and decodes with, for the image that is served on `port`."""
    from worker.fetch.http import HttpLimits, HttpSource
    from worker.fetch.netguard import parse_allow
    from worker.image import ImageLimits
    from worker.sandbox import Sandbox

    limits = HttpLimits(max_per_host=MAX_PER_HOST)
    source = HttpSource(limits, [parse_allow(f"127.0.0.1/32:{port}")])
    with closing(source), closing(Sandbox(ImageLimits(), decoders=decoders)) as sandbox:
        sandbox.start()
        yield (
            lambda: source.fetch(_url(port), time.monotonic() + 60),
            lambda data: sandbox.decode(data, PUBLISHED),
        )


@contextmanager
def _plain_fetch(port: int) -> Iterator[Fetch]:
    import httpcore2

    with httpcore2.ConnectionPool(max_connections=64, max_keepalive_connections=64) as pool:
        yield lambda: pool.request("GET", _url(port)).content


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/image.jpg"
