"""What an explained caption costs, beside a plain greedy one.

`python -m worker.blip.bench.explain`, also called `captionq-worker bench explain`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from worker.blip.bench.noise import coarse_noise
from worker.blip.bench.sized import add_size, count, sized
from worker.blip.bench.timing import medians
from worker.blip.device import DTYPES
from worker.blip.engine import Engine
from worker.blip.explanation import DEFAULT_METHOD, METHODS, Method
from worker.blip.hardware import Hardware, hardware
from worker.blip.options import CaptionOptions

MOST = {"gradcam": 3.0, DEFAULT_METHOD: 2.0}
"""Times that an explained caption may cost a plain greedy one."""


@dataclass(frozen=True)
class ExplainResult:
    """Medians of a batch, pixels to captions, and to explanations of them, in milliseconds.

    caption_ms: plain greedy captions. explained_ms: these and an explanation of each, by method, on
    the same pass of the ViT where the method needs no pixels. times: over caption_ms.
    """

    model: str
    device: str
    dtype: str
    batch: int
    tokens: int
    repeats: int
    caption_ms: float
    explained_ms: dict[Method, float]
    times: dict[Method, float]
    hardware: Hardware


def measure_explain(
    name: str,
    folder: Path,
    dtype: str = "float32",
    batch: int = 16,
    tokens: int = 12,
    repeats: int = 5,
    device: str = "auto",
    methods: Sequence[Method] = ("attention", "gradcam"),
) -> ExplainResult:
    """Measure, after one call of each side to warm up; the sides take turns in going first.

    Raises CheckpointError, DeviceUnavailable, OutOfMemory, ValueError.
    """
    engine = Engine.load(folder, device=device, dtype=dtype, tasks=["caption"])
    images = coarse_noise(batch, engine.image_size)
    options = CaptionOptions(num_beams=1, min_new_tokens=tokens, max_new_tokens=tokens)

    def explained(method: Method) -> Any:
        encoded = engine.encode(images)
        captions = engine.caption(encoded, options)
        seen = images if method in ("rollout", "occlusion") else encoded
        return engine.explain(seen, captions, method=method)

    sides: dict[str, Callable[[], Any]] = {"caption": lambda: engine.caption(images, options)}
    for method in methods:
        sides[method] = partial(explained, method)
    for call in sides.values():
        call()
    on = torch.device(engine.device)
    took = medians(sides, repeats, on)
    return ExplainResult(
        model=name,
        device=engine.device,
        dtype=engine.dtype,
        batch=batch,
        tokens=tokens,
        repeats=repeats,
        caption_ms=1e3 * took["caption"],
        explained_ms={method: 1e3 * took[method] for method in methods},
        times={method: took[method] / took["caption"] for method in methods},
        hardware=hardware(on),
    )


def lines(result: ExplainResult) -> str:
    """A result in a few lines."""
    case = (
        f"{result.model}, {result.dtype} on {result.device}: {result.batch} images, "
        f"{result.tokens} tokens each, medians of {result.repeats}\n({result.hardware})"
    )
    told = [case, f"greedy captions {result.caption_ms:.0f} ms"]
    for method, took in result.explained_ms.items():
        bar = f" (at most {MOST[method]:g})" if method in MOST else ""
        told.append(f"explained by {method} {took:.0f} ms: {result.times[method]:.2f} times{bar}")
    return "\n".join(told)


def main(
    arguments: Sequence[str] | None = None, prog: str = "python -m worker.blip.bench.explain"
) -> int:
    """Measure, print, and answer 0."""
    parser = argparse.ArgumentParser(
        prog=prog, description="What an explained caption costs, beside a plain greedy one."
    )
    add_size(parser)
    parser.add_argument("--batch", type=count, default=16, help="images")
    parser.add_argument("--tokens", type=count, default=12, help="new tokens of every caption")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--repeats", type=count, default=5, help="of which the medians are taken")
    parser.add_argument(
        "--method",
        choices=METHODS,
        action="append",
        help="repeat for more; by default attention and gradcam. occlusion takes 64 times as long",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        name, folder = sized(args.size, Path(temporary))
        result = measure_explain(
            name,
            folder,
            args.dtype,
            args.batch,
            args.tokens,
            args.repeats,
            args.device,
            args.method or ("attention", "gradcam"),
        )
    print(json.dumps(asdict(result)) if args.json else lines(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
